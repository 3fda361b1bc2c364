"""Names of back ends, and what does not go together."""

import re

import pytest

from pipeline_annotate.back_ends import load_classifier
from pipeline_annotate.stage_settings import StageSettings, split_revision


def test_a_model_may_have_a_revision(tmp_path):
    folder = tmp_path / "model@home"
    folder.mkdir()
    assert split_revision("org/model") == ("org/model", None)
    assert split_revision("org/model@v1.0") == ("org/model", "v1.0")
    assert split_revision(str(folder)) == (str(folder), None)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"captioner": "blip:model"}, "--captioner: got 'blip:model'; expected glamm:MODEL"),
        ({"captioner": "glamm:"}, "--captioner"),
        ({"video_captioner": "llava:x"}, "--video-captioner: got 'llava:x'; expected grove:MODEL or git:MODEL"),
        ({"tracker": "cotracker"}, "--tracker: got 'cotracker'; expected sam2:MODEL or bytetrack"),
        ({"quantization": "4bit"}, "--quantize: got '4bit' of 'rules'; expected 4bit or 8bit of transformers:MODEL"),
        ({"whole_captions": True}, "--whole-captions"),
        ({"by_likelihood": True}, "--by-likelihood"),
        ({"similarity": "m", "language_model": "transformers:x"}, "--similarity"),
        ({"language_model": "llama"}, "--language-model"),
        ({"fps": 0.0}, "--fps 0.0"),
    ],
)
def test_what_does_not_go_together(settings, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        StageSettings(**{"captioner": "colours", **settings})


def test_an_encoder_that_cannot_be_loaded_is_named(tmp_path):
    with pytest.raises(ValueError, match="text model .* cannot be loaded"):
        load_classifier(StageSettings("colours", similarity=str(tmp_path)))
