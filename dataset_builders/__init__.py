"""Data sets of grounded captions: the record on disk, shards, builders, streams, importers, exporters, a synthetic world."""
