"""What of a run goes to the Hub, through `hub_cards`: the model with its code and card, checked, and nothing else."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import HubStrategy

from hub_cards.model_card import Lineage
from hub_cards.preparing import Choices, prepare_model
from hub_cards.publication import CARD, Publication
from hub_cards.uploading import Settings, hub_errors, upload

from .model_card import training_card_text

logger = logging.getLogger(__name__)


class ModelPushes(Trainer):
    """
    A Trainer that publishes complete models only: from a checkpoint meanwhile, and the model at the end.

    Attributes:
        made_of ([`Lineage`] or `None`): what the model is made of, for its card; by default what the Trainer itself knows of that.
    """

    made_of: Lineage | None = None

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Pushes a checkpoint's model in the background, unless the last push is still under way."""
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        pending: Any = getattr(self, "push_in_progress", None)
        if pending is not None and not pending.done() and not self.args.hub_always_push:
            return
        self._finish_current_push()
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        trainer: Any = self
        publication = self._publication(checkpoint_folder, training_card_text(trainer, Path(checkpoint_folder)))
        trainer.push_in_progress = HfApi().run_as_future(
            upload,
            publication,
            self._settings(f"Training in progress, step {self.state.global_step}"),
            self.args.hub_token,
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

        Raises:
            `ValueError`: if it must not be published (see [`hub_cards.preparing.prepare_model`]), or the Hub refuses.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.create_model_card(**card)
        self._finish_current_push()
        text = (Path(self.args.output_dir) / CARD).read_text(encoding="utf-8")
        publication = self._publication(self.args.output_dir, text)
        settings, token = self._settings(commit_message, revision), token or self.args.hub_token
        if blocking:
            return upload(publication, settings, token)
        return HfApi().run_as_future(upload, publication, settings, token)

    def _publication(self, folder: str | Path, card: str) -> Publication:
        """The model in a folder, which has just been trained: its files are checked, it is not run once more."""
        return prepare_model(Path(folder), str(self.hub_model_id), Choices(forward=False), card)

    def _settings(self, message: str | None, revision: str | None = None) -> Settings:
        return Settings(
            private=bool(self.args.hub_private_repo),
            revision=revision or self.args.hub_revision,
            message=message or "Training",
            edited_card="keep",
        )


def push_finished(folder: Path, args: TrainingArguments) -> None:
    """
    Pushes the model of a run that was finished before, whose push may have failed.

    Raises:
        `ValueError`: as [`ModelPushes.push_to_hub`].
    """
    name = args.hub_model_id or folder.resolve().name
    with hub_errors(f"{name}: cannot be published"):
        repository = HfApi(token=args.hub_token).create_repo(name, private=args.hub_private_repo, exist_ok=True)
    card = (folder / CARD).read_text(encoding="utf-8")
    publication = prepare_model(folder, repository.repo_id, Choices(forward=False), card)
    settings = Settings(revision=args.hub_revision, message="End of training", edited_card="keep")
    upload(publication, settings, args.hub_token)


__all__ = ["ModelPushes", "push_finished"]
