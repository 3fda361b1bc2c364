"""The paper's three-stage annotation of videos: frame captions, one caption for the clip, consistent labels."""
