#!/bin/sh
# Robust gradients on CamVid (Sandoval-Segura 2022): what studies/adversarial-camvid measured already is taken over, the rest is run: paintings and
# gradients of the three networks, the independent judge, tables and verdicts. DATA is the folder that holds camvid in SegNet layout. Pictures, the blind
# pairs among them, show frames of CamVid: they lie in panels/, which git ignores. Appends; go on by running again.
set -eu
cd "$(dirname "$0")/../.."
out=studies/sandoval2022-camvid
[ -f "$out/records.jsonl" ] || cp studies/adversarial-camvid/records.jsonl "$out/records.jsonl"
robustseg reproduce sandoval2022 --tier camvid --data "${DATA:-data}" --device cpu --out "$out" "$@"
