#!/bin/sh
# Parity at eight times the length of training: what a state that only fades or adds up cannot keep.
recurra compare parity --mixers lstm,minmax,deltaproduct,rwkv7,mamba,linear_attention \
    --set deltaproduct.fades=false --parameters 20k --depth 1 --batch 32 --length 32 --evaluation-length 256 \
    --steps 1000 --lr 6e-3 --seeds 3 --workers 1 --run "${1:-runs/recipes}/parity"
# RWKV-7 whose steps may flip a sign, at a higher rate, beside others at that rate
recurra compare parity --mixers rwkv7,mamba,linear_attention --set rwkv7.strength=2.0 --parameters 20k --depth 1 \
    --batch 32 --length 32 --evaluation-length 256 --steps 400 --lr 1e-2 \
    --seeds 3 --workers 1 --run "${1:-runs/recipes}/parity-strength"
recurra compare parity --mixers rwkv7 --parameters 20k --depth 1 \
    --batch 32 --length 32 --evaluation-length 256 --steps 400 --lr 1e-2 \
    --seeds 3 --workers 1 --run "${1:-runs/recipes}/parity-without"
