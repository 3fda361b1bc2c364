"""
The demo: a clip in, a caption out whose phrases are tied to boxes.

    python hub_cards/space/app.py                                  # in a checkout, with checkpoints/grove-tiny
    MODEL_ID=org/grove python hub_cards/space/app.py --port 7861   # with another model

A Space runs this file as it is; `bundle.py` makes the folder for it.
"""

from __future__ import annotations

import argparse
import html
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import gradio as gr

import modeling_grove  # noqa: F401  (registers GROVE)
from hub_cards.space.captioning import (
    Captioner,
    Grounding,
    Limits,
    highlighted,
    view_json,
    with_threshold,
    write_page,
    write_record,
    write_video,
)
from modeling_grove.drawing_grove import PALETTE
from modeling_grove.report_page_grove import VIEW_CSS, VIEW_JS

DEFAULT_MODEL = "checkpoints/grove-tiny"
HERE = Path(__file__).resolve().parent
# A Space has this file beside the packages, a checkout two folders below.
ROOT = HERE if (HERE / "modeling_grove").is_dir() else HERE.parents[1]

INTRODUCTION = """# GROVE: grounded video captions
GROVE captions a short clip and ties every noun phrase to boxes that follow the object through the frames, or says that it is out of
sight. Give it a clip, or a clip and a caption of your own.
"""
MARKED = "[A man] comes out from behind [a wall]."
GONE = "Results are kept for an hour, and this one is gone. Caption the clip again."
EMPTY = '<div class="empty">The caption appears here, with the boxes of its phrases and when each of them is in sight.</div>'

CSS = """
.gradio-container { max-width: 1240px !important; }
#message, #view, #message .html-container, #view .html-container { padding: 0; }
#message .empty { display: grid; place-items: center; min-height: 280px; padding: 24px; border: 1px dashed var(--quiet);
  border-radius: 8px; text-align: center; color: var(--quiet); }
#message [role="alert"] { padding: 12px 16px; border-radius: 8px; border: 1px solid #d9a000; background: #fff6dc; color: #4a3500;
  overflow-wrap: anywhere; }
#caption .textfield { display: block; font-size: 0; line-height: 0; word-break: normal; overflow-wrap: anywhere; }
#caption .token-container, #caption .token { display: inline; margin: 0; padding: 0; line-height: 0; }
#caption .token .text { padding: 0; white-space: pre-wrap; font-size: 20px; line-height: 1.8; }
#caption .token.highlighted { display: inline-block; padding: 0 6px; border-radius: 6px; cursor: pointer;
  color: var(--body-text-color) !important; }
#caption .token.highlighted .text { line-height: 1.45; }
#caption .token.highlighted:hover { outline: 2px solid currentColor; outline-offset: 1px; }
.gradio-container { --quiet: #596273; }
.dark .gradio-container, .gradio-container.dark { --quiet: #a3abb8; }
#view { --grove-text: var(--body-text-color); --grove-muted: var(--quiet); --grove-line: var(--border-color-primary);
  --grove-card: var(--background-fill-primary); }
.quiet * { color: var(--quiet) !important; font-size: 14px; }
footer { display: none !important; }
"""

# The view stays as it is when only the threshold moves: it has the scores. Hovering a phrase in the caption lights up its
# boxes; Gradio's own component tells nothing of that, so the page listens to its spans.
MOUNT = (
    VIEW_JS
    + """
const phrases = () => [...document.querySelectorAll("#caption .token.highlighted")];
function mount() {
  const place = element.querySelector(".place");
  if (!props.value || !place) return;
  const view = groveView(place, JSON.parse(props.value));
  window.grove = view;
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) view.video.play().catch(() => {});
}
document.addEventListener("mouseover", event => {
  if (!window.grove || !event.target.closest) return;
  const phrase = phrases().indexOf(event.target.closest("#caption .token.highlighted"));
  if (phrase >= 0) window.grove.highlight(phrase);
  else if (event.target.closest("#caption") || !event.target.closest("#view")) window.grove.highlight(null);
});
watch("value", mount);
mount();
"""
)
PROGRESS = gr.Progress()  # as a default it asks Gradio for one of the call's own
MOVE = "threshold => { if (window.grove) window.grove.setThreshold(threshold); return threshold; }"


def example_clips() -> dict[str, list[str]]:
    """The examples by name: a clip, and a caption for it or none."""
    clip = str(ROOT / "examples" / "shapes.mp4")
    return {
        "A man and a wall": [clip, ""],
        "The same clip, with a caption of my own": [
            clip,
            "[A man] comes out from behind [a brick wall] and waves to [a dog].",
        ],
    }


def build(captioner: Captioner) -> gr.Blocks:
    """
    The page.

    Args:
        captioner (`Captioner`): The model with its limits; results go into its folder, which `launch` has to allow.

    Returns:
        `gr.Blocks`: not yet launched.
    """
    limits = captioner.limits

    def run(
        old: Grounding | None,
        video: str | None,
        own: str,
        start: float | None,
        end: float | None,
        progress: Any = PROGRESS,
    ) -> tuple:
        def tell(stage: str, done: int, total: int) -> None:
            progress((done, total), desc=stage)

        _forget(old)  # Gradio calls it for a state that ends, not for one that is replaced
        try:
            grounding = captioner.run(video, own, start, end, tell)
        except ValueError as error:
            # Unlike a toast, it stays until the next try.
            message = f'<div role="alert">{html.escape(str(error))}</div>'
            return gr.HTML(message, visible=True), gr.Column(visible=False), None, *[gr.skip()] * 7
        record, coco = write_record(grounding, grounding.threshold)
        return (
            gr.HTML(visible=False),
            gr.Column(visible=True),
            grounding,
            highlighted(grounding.caption),
            view_json(grounding, f"gradio_api/file={grounding.folder.as_posix()}"),
            grounding.threshold,
            record,
            coco,
            write_page(grounding),
            gr.Video(visible=False),
        )

    def move(grounding: Grounding | None, threshold: float) -> tuple:
        if grounding is None:
            gr.Warning(GONE)
            return gr.skip(), gr.skip(), gr.skip()
        return highlighted(with_threshold(grounding, threshold)), *write_record(grounding, threshold)

    def draw(grounding: Grounding | None, threshold: float) -> Any:
        if grounding is None:
            gr.Warning(GONE)
            return gr.skip()
        return gr.Video(write_video(grounding, threshold), visible=True)

    # Files of Gradio and of ours go after an hour.
    with gr.Blocks(title="GROVE", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                video = gr.Video(label="Clip", sources=["upload"], include_audio=True, height=280, elem_id="clip")
                own = gr.Textbox(
                    label="Your own caption (optional)",
                    info="To ground it instead, with its phrases in square brackets.",
                    placeholder=MARKED,
                    lines=2,
                    elem_id="own",
                )
                with gr.Accordion("Part of the video", open=False), gr.Row():
                    start = gr.Number(None, label="Start (s)", minimum=0, min_width=100)
                    end = gr.Number(None, label="End (s)", minimum=0, min_width=100)
                button = gr.Button("Caption the clip", variant="primary", elem_id="run")
                gr.Markdown(
                    f"Up to {limits.seconds:g} s and {limits.megabytes:g} MB. Clips are captioned one after the other.",
                    elem_classes="quiet",
                )
                clips = example_clips()
                gr.Examples(list(clips.values()), [video, own], label="Examples", example_labels=list(clips))
            with gr.Column(scale=5, min_width=320):
                message = gr.HTML(EMPTY, apply_default_css=False, elem_id="message")
                with gr.Column(visible=False, elem_id="result") as result:
                    caption = gr.HighlightedText(
                        label="Caption",
                        color_map=_color_map(),
                        show_inline_category=False,
                        interactive=False,
                        elem_id="caption",
                    )
                    view = gr.HTML(
                        html_template='<div class="place"></div>',
                        js_on_load=MOUNT,
                        apply_default_css=False,
                        elem_id="view",
                    )
                    threshold = gr.Slider(
                        0,
                        1,
                        0.5,
                        step=0.01,
                        label="Threshold",
                        info="A phrase is present where its objectness, the height of its bar, is above this.",
                        elem_id="threshold",
                    )
                    with gr.Row():
                        record = gr.DownloadButton("JSON file", size="md", min_width=130, elem_id="json")
                        coco = gr.DownloadButton("COCO file", size="md", min_width=130, elem_id="coco")
                        report = gr.DownloadButton("HTML report", size="md", min_width=130, elem_id="report")
                        drawing = gr.Button("Annotated video", size="md", min_width=130, elem_id="draw")
                    annotated = gr.Video(
                        label="Annotated video", visible=False, interactive=False, height=460, elem_id="annotated"
                    )
        state = gr.State(None, time_to_live=3600, delete_callback=_forget)
        outputs = [message, result, state, caption, view, threshold, record, coco, report, annotated]
        button.click(
            run,
            [state, video, own, start, end],
            outputs,
            concurrency_id="model",
            scroll_to_output=True,
            api_name="caption",
        )
        threshold.input(None, threshold, None, js=MOVE)
        threshold.input(
            move,
            [state, threshold],
            [caption, record, coco],
            show_progress="hidden",
            trigger_mode="always_last",
            api_visibility="private",
        )
        drawing.click(draw, [state, threshold], annotated, concurrency_id="model", api_visibility="private")
    page.queue(max_size=20, default_concurrency_limit=4)
    return page


def _color_map() -> dict[str, str]:
    colors = [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in PALETTE]
    return dict(zip(colors, colors, strict=True)) | {"absent": "#b8bec8"}


def _forget(grounding: Grounding | None) -> None:
    if grounding is not None:
        grounding.remove()


def launch_options(captioner: Captioner) -> dict[str, Any]:
    """What `launch` needs for this page to work and look as it should."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    theme = gr.themes.Default(
        primary_hue="indigo", neutral_hue="slate", font=fonts, font_mono=["ui-monospace", "monospace"]
    ).set(
        # The theme's own greys are too pale to read.
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
    )
    return {
        "allowed_paths": [str(captioner.folder)],
        "max_file_size": f"{captioner.limits.megabytes:g}mb",
        "theme": theme,
        "head": f"<style>{VIEW_CSS}{CSS}</style>",
        "ssr_mode": False,
    }


def load(model: str, folder: Path, limits: Limits | None = None) -> Captioner:
    """
    The model and its pipeline.

    Args:
        model (`str`): Directory or Hub id; a directory is looked for in the checkout too.
        folder (`Path`): Where results go.
        limits (`Limits`, *optional*): What clips are accepted.

    Raises:
        OSError: there is no such model.
        ValueError: it is no GROVE model.
    """
    from transformers import pipeline

    local = ROOT / model
    name = str(local) if local.is_dir() else model
    return Captioner(pipeline("grounded-video-captioning", model=name, dtype="auto"), folder, limits)


def main(arguments: list[str] | None = None) -> int:
    """Runs the app until it is stopped; returns its exit status: 0, or 2 when the model cannot be loaded."""
    parser = argparse.ArgumentParser(description="The demo of GROVE in a browser.")
    parser.add_argument(
        "--model",
        default=os.environ.get("MODEL_ID", DEFAULT_MODEL),
        metavar="DIR|ID",
        help="model directory or Hub id; also the environment variable MODEL_ID (default: %(default)s)",
    )
    parser.add_argument(
        "--port", type=int, metavar="N", help="port to serve on (default: the first free one from 7860)"
    )
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="grove-space-") as folder:
        try:
            captioner = load(args.model, Path(folder))
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            print(f"error: cannot load {args.model!r}: {reason} (see --model)", file=sys.stderr)  # noqa: T201
            return 2
        build(captioner).launch(server_port=args.port, **launch_options(captioner))
    return 0


if __name__ == "__main__":
    sys.exit(main())
