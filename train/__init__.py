"""Pre-training (`pt.py`) and fine-tuning (`ft.py`) of GROVE with the Trainer of transformers; from a checkout only."""
