#!/bin/sh
# English words said from their letters: the writer looks back at the letters, or all is in one state.
recurra compare letter_to_sound --task model=bahdanau --mixers gru --parameters 100k --depth 1 --batch 48 --length 20 \
    --steps 400 --lr 6e-3 --seeds 3 --workers 1 --run "${1:-runs/recipes}/letter_to_sound/attention"
recurra compare letter_to_sound --mixers gru --parameters 100k --depth 1 --batch 48 --length 20 \
    --steps 400 --lr 6e-3 --seeds 3 --workers 1 --run "${1:-runs/recipes}/letter_to_sound/one_state"
