#!/bin/sh
# Klingner et al. 2020 on CamVid with video of KITTI: trains and measures fifteen networks in two processes, one a core, then writes tables,
# verdicts and curves. DATA is the folder with camvid and video. Goes on by running again; --dry-run: minutes.
set -eu
cd "$(dirname "$0")/../.."
out="${OUT:-runs/klingner2020-camvid}"
reproduce() { OMP_NUM_THREADS=1 robustseg reproduce klingner2020 --tier camvid --data "${DATA:-data}" --device cpu --out "$out" "$@"; }
reproduce --rows single-0,multi-0,control-1,multi-2,lambda0.9-2,lambda0.25-0,lambda0.75-0 "$@" &
first=$!
reproduce --rows control-0,multi-1,single-1,single-2,control-2,lambda0.5-0,lambda0.9-0,lambda0.9-1 "$@"
wait "$first"
case "$*" in *--dry-run*) exit ;; esac
reproduce
cp "$out/tables.md" "$out/verdicts.json" "$out/curves.svg" "$out/figures.html" studies/klingner2020-camvid/
for home in "$out"/networks/*/; do
    kept="studies/klingner2020-camvid/networks/$(basename "$home")"
    mkdir -p "$kept"
    cp "$home"*s.jsonl "$kept/" # records and measures; history.jsonl stays
done
