"""
Pre-trains GROVE on automatically annotated clips.

    accelerate launch train/pt.py --config train/recipes/pt_howtoground1m.yaml
    accelerate launch train/pt.py --config train/recipes/pt_shapes.yaml --output_dir runs/pt
    torchrun --nproc-per-node 2 train/pt.py --config train/recipes/pt_shapes.yaml --use_cpu true --ddp_backend gloo

Every key of a recipe can be given on the command line. The same command goes on where a run was stopped.
"""

import sys

from train.running import main

if __name__ == "__main__":
    sys.exit(main("pt", description=__doc__))
