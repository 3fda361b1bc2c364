"""What of a run goes to the Hub: the model folder, and nothing that only this machine needs to know."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import HubStrategy

logger = logging.getLogger(__name__)

# Not the Trainer's state, events and pictures, which have paths and the name of this machine in them, and no pickles.
MODEL_FILES = [
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "adapter_config.json",
    "processor_config.json",
    "chat_template.jinja",
    "tokenizer*",
    "special_tokens_map.json",
    "*.py",
    "README.md",
    "results.json",
]


class ModelPushes(Trainer):
    """A Trainer that pushes complete model folders only: from a checkpoint meanwhile, and the model at the end."""

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Pushes a checkpoint's model in the background, unless the last push is still under way."""
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        pending: Any = getattr(self, "push_in_progress", None)
        if pending is not None and not pending.done() and not self.args.hub_always_push:
            return
        self._finish_current_push()
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self.push_in_progress = self._upload(
            checkpoint_folder, f"Training in progress, step {self.state.global_step}", run_as_future=True
        )

    def _finish_current_push(self) -> None:
        """Waits for a push that is under way. One that failed is told of, and stops nothing: the next one sends everything."""
        pending: Any = getattr(self, "push_in_progress", None)
        self.push_in_progress = None
        error = None if pending is None else pending.exception()
        if error is not None:
            logger.warning("a push on the way failed: %s", " ".join(str(error).split()))

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **card: Any,
    ) -> Any:
        """
        Pushes the model, its processor, its code and its card; see `Trainer.push_to_hub` for the arguments.

        Args:
            card (*optional*): of the card: `license`, `tags`, `datasets`, ...
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.create_model_card(**card)
        self._finish_current_push()
        return self._upload(
            self.args.output_dir, commit_message, run_as_future=not blocking, token=token, revision=revision
        )

    def _upload(
        self,
        folder: str | Path,
        message: str | None,
        run_as_future: bool,
        token: str | None = None,
        revision: str | None = None,
    ) -> Any:
        upload: Any = HfApi().upload_folder  # whose overloads want `run_as_future` as a constant
        return upload(
            repo_id=str(self.hub_model_id),
            folder_path=folder,
            commit_message=message,
            token=token or self.args.hub_token,
            revision=revision or self.args.hub_revision,
            run_as_future=run_as_future,
            allow_patterns=MODEL_FILES,
        )


def push_finished(folder: Path, args: TrainingArguments) -> None:
    """Pushes the model of a run that was finished before, whose push may have failed."""
    api = HfApi(token=args.hub_token)
    name = args.hub_model_id or folder.resolve().name
    repository = api.create_repo(name, private=args.hub_private_repo, exist_ok=True)
    api.upload_folder(
        repo_id=repository.repo_id,
        folder_path=folder,
        commit_message="End of training",
        revision=args.hub_revision,
        allow_patterns=MODEL_FILES,
    )


__all__ = ["MODEL_FILES", "ModelPushes", "push_finished"]
