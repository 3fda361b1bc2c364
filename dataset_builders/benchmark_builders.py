"""`datasets` builders of the benchmarks that the paper evaluates on beside iGround.

Their annotations come from their authors: `python -m dataset_builders import` turns them into records, `... shard` those into
shards, and the builders here read either (see [`~dataset_builders.builders.GroundedCaptions`] for the arguments).

Licences are those that the authors' repositories state; "unknown" where they state none. None of them covers the videos.
"""

from __future__ import annotations

from .builders import GroundedCaptions, GroundedCaptionsConfig, with_video_twins


class VidSTG(GroundedCaptions):
    """
    Sentences and questions about one object of a video, and the object's tube. Splits: `train`, `validation`, `test`.

    Configurations: `default`, and `default_video` with the clips. Declarative and interrogative sentences are scored apart:
    `record_metadata(row["json"])["qtype"]` says which a record has.
    """

    BUILDER_CONFIGS = with_video_twins(
        GroundedCaptionsConfig(description="Declarative and interrogative sentences (`qtype` in the metadata).")
    )
    DEFAULT_CONFIG_NAME = "default"
    DATASET_NAME = "vidstg"
    DESCRIPTION = (
        "VidSTG: declarative and interrogative sentences about the objects of VidOR's videos, each with the spatio-temporal "
        "tube of the object that is meant. VidSTG's test videos are VidOR's validation videos, its validation videos a tenth "
        "of VidOR's training videos."
    )
    CITATION = """@inproceedings{zhang2020does,
  title     = {Where Does It Exist: Spatio-Temporal Video Grounding for Multi-Form Sentences},
  author    = {Zhang, Zhu and Zhao, Zhou and Zhao, Yang and Wang, Qi and Liu, Huasheng and Gao, Lianli},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2020}
}"""
    HOMEPAGE = "https://github.com/Guaranteer/VidSTG-Dataset"
    LICENSE = "unknown"


class ActivityNetEntities(GroundedCaptions):
    """
    Captions of ActivityNet segments; each noun phrase has boxes in one frame of the segment. Splits: `train`, `validation`.

    Configurations: `default`, and `default_video` with the clips.
    """

    BUILDER_CONFIGS = with_video_twins(
        GroundedCaptionsConfig(description="Captions of segments, with boxes of the noun phrases.")
    )
    DEFAULT_CONFIG_NAME = "default"
    DATASET_NAME = "activitynet_entities"
    DESCRIPTION = (
        "ActivityNet-Entities: the captions of ActivityNet Captions with 158 thousand boxes, each of a noun phrase in one frame "
        "of the captioned segment."
    )
    CITATION = """@inproceedings{zhou2019grounded,
  title     = {Grounded Video Description},
  author    = {Zhou, Luowei and Kalantidis, Yannis and Chen, Xinlei and Corso, Jason J. and Rohrbach, Marcus},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2019}
}"""
    HOMEPAGE = "https://github.com/facebookresearch/ActivityNet-Entities"
    LICENSE = "MIT"


class YouCookInteractions(GroundedCaptions):
    """
    Steps of cooking videos with a box of the interaction in every annotated second, for evaluation by pointing. Split: `test`.

    Configurations: `default`, and `default_video` with the clips.
    """

    BUILDER_CONFIGS = with_video_twins(
        GroundedCaptionsConfig(description="Described interactions, with a box of each a second.")
    )
    DEFAULT_CONFIG_NAME = "default"
    DATASET_NAME = "youcook_interactions"
    DESCRIPTION = (
        "YouCook2-Interactions: described interactions in validation videos of YouCook2, with the box of the interaction in "
        "every annotated second. A prediction counts if the centre of its box is inside."
    )
    CITATION = """@inproceedings{tan2021look,
  title     = {Look at What I'm Doing: Self-Supervised Spatial Grounding of Narrations in Instructional Videos},
  author    = {Tan, Reuben and Plummer, Bryan and Saenko, Kate and Jin, Hailin and Russell, Bryan},
  booktitle = {Advances in Neural Information Processing Systems (NeurIPS)},
  year      = {2021}
}"""
    HOMEPAGE = "https://github.com/rxtan2/video-grounding-narrations"
    LICENSE = "unknown"


class GroundingYouTube(GroundedCaptions):
    """
    Actions in long instructional videos with a box of the action in every annotated second, for evaluation by pointing. Split:
    `test`.

    Configurations: `default`, and `default_video` with the clips.
    """

    BUILDER_CONFIGS = with_video_twins(
        GroundedCaptionsConfig(description="Described actions, with a box of each a second.")
    )
    DEFAULT_CONFIG_NAME = "default"
    DATASET_NAME = "grounding_youtube"
    DESCRIPTION = (
        "GroundingYouTube: over five thousand described actions in videos of Mining YouTube, with the box of the action in every "
        "annotated second. A prediction counts if the centre of its box is inside."
    )
    CITATION = """@inproceedings{chen2024what,
  title     = {What, when, and where? Self-Supervised Spatio-Temporal Grounding in Untrimmed Multi-Action Videos from
               Narrated Instructions},
  author    = {Chen, Brian and Shvetsova, Nina and Rouditchenko, Andrew and Kondermann, Daniel and Thomas, Samuel and
               Chang, Shih-Fu and Feris, Rogerio and Glass, James and Kuehne, Hilde},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2024}
}"""
    HOMEPAGE = "https://github.com/brian7685/GroundingYouTube"
    LICENSE = "unknown"


__all__ = ["ActivityNetEntities", "GroundingYouTube", "VidSTG", "YouCookInteractions"]
