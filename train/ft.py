"""
Fine-tunes a pre-trained GROVE on clean annotations.

    accelerate launch train/ft.py --config train/recipes/ft_iground.yaml
    accelerate launch train/ft.py --config train/recipes/ft_shapes.yaml --output_dir runs/ft
    torchrun --nproc-per-node 2 train/ft.py --config train/recipes/ft_shapes.yaml --use_cpu true --ddp_backend gloo

Every key of a recipe can be given on the command line. The same command goes on where a run was stopped.
"""

import sys

from train.running import main

if __name__ == "__main__":
    sys.exit(main("ft", description=__doc__))
