"""GROVE for transformers: importing this package registers the model, its processors and its pipeline."""

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor
from transformers.models.auto.video_processing_auto import AutoVideoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_grove import GroveConfig, GroveGroundingConfig
from .grounded_caption import GroundedCaption, PhraseTrack
from .modeling_grove import GroveForConditionalGeneration, GroveModel, GrovePreTrainedModel
from .pipeline_grove import GroundedVideoCaptioningPipeline
from .processing_grove import GroveProcessor
from .remote_code_grove import PIPELINE_TASK, add_remote_code, save_with_remote_code
from .video_grove import VideoClip, VideoDecodeError, iter_video_clips, read_video
from .video_processing_grove import GroveVideoProcessor

AutoConfig.register("grove", GroveConfig)
AutoModel.register(GroveConfig, GroveForConditionalGeneration)
AutoModelForImageTextToText.register(GroveConfig, GroveForConditionalGeneration)
AutoVideoProcessor.register(GroveConfig, GroveVideoProcessor)
AutoProcessor.register(GroveConfig, GroveProcessor)
PIPELINE_REGISTRY.register_pipeline(
    PIPELINE_TASK,
    pipeline_class=GroundedVideoCaptioningPipeline,
    pt_model=AutoModel,
    default={"model": ("org/grove", "main")},
    type="multimodal",
)

__all__ = [
    "GroundedCaption",
    "GroundedVideoCaptioningPipeline",
    "GroveConfig",
    "GroveForConditionalGeneration",
    "GroveGroundingConfig",
    "GroveModel",
    "GrovePreTrainedModel",
    "GroveProcessor",
    "GroveVideoProcessor",
    "PhraseTrack",
    "VideoClip",
    "VideoDecodeError",
    "add_remote_code",
    "iter_video_clips",
    "read_video",
    "save_with_remote_code",
]
