"""Importers: what others released, as records. Each yields records and reports every entry that it has to leave out."""
