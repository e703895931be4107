#!/bin/sh
# Parity at eight times the length of training: what a state that only fades or adds up cannot keep.
recurra compare parity --mixers lstm,minmax,deltaproduct,rwkv7,mamba,linear_attention \
    --set deltaproduct.fades=false --parameters 20k --depth 1 --batch 32 --length 32 --evaluation-length 256 \
    --steps 1000 --lr 6e-3 --seeds 3 --workers 1 --run "${1:-runs/recipes}/parity"
