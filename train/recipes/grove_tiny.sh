#!/usr/bin/env bash
# Makes checkpoints/grove-tiny from nothing: data, encoders, a model of stills, noisy pre-training, clean fine-tuning, scores.
#
#   bash train/recipes/grove_tiny.sh [FOLDER]
#
# Run it in an environment with `pip install -e ".[train,eval]"`. It can be stopped: the same command goes on.
# SEED=1 makes a second one. START=checkpoints/grove-tiny-stills goes on from a model of stills, which saves half of the time.
# CHECKPOINT=DIR also writes the model there, to give away.
set -euo pipefail

out=${1:-outputs/grove-tiny}
seed=${SEED:-0}
run="$out/seed-$seed"
python=${PYTHON:-python}

start=${START:-}
$python -m train world --output "$out/world" --pretraining 9000 --finetuning 8000 ${start:+--stills 0}
if [ -z "$start" ]; then
    start="$run/stills"
    if [ ! -e "$run/new" ]; then
        $python -m train new --preset tiny --seed "$seed" --captions "$out/world/noisy.jsonl" \
            --captions "$out/world/stills.jsonl" --output "$run/new"
    fi
    $python -m train vision "$run/new" --seed "$seed" --stills "$out/world/stills.jsonl" --videos "$out/world/shapes/videos" \
        --output "$run/vision"
    $python train/pt.py --config train/recipes/stills_shapes.yaml --model_name_or_path "$run/vision" --output_dir "$start" \
        --seed "$seed" --train_data "$out/world/stills" --videos "$out/world/shapes/videos"
fi
$python train/pt.py --config train/recipes/pt_shapes.yaml --model_name_or_path "$start" --output_dir "$run/pt" --seed "$seed" \
    --train_data "$out/world/noisy-9000"
$python train/ft.py --config train/recipes/ft_shapes.yaml --model_name_or_path "$run/pt" --output_dir "$run/ft" --seed "$seed" \
    --train_data "$out/world/clean"
for stage in pt ft; do
    $python -m eval run iground --model "$run/$stage" --data shapes:7:300 --split test --batch-size 8 --window-batch-size 24 \
        --output "$run/results-$stage"
done
if [ -n "${CHECKPOINT:-}" ]; then
    $python -m train export "$run/ft" --dtype float16 --output "$CHECKPOINT"
fi
