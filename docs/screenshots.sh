#!/usr/bin/env bash
# Makes the pictures of docs/images/ from a real run of docs/images/gallery.toml on the simulated engine, with Chromium.
# Takes some minutes on a quiet machine; on a busy one the figures in the pictures are those of a busy machine.
set -euo pipefail
cd "$(dirname "$0")/.."

out=docs/images
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome) || {
  echo "Chromium is missing: apt-get install chromium" >&2
  exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cargo build --release --quiet
code=0
"${CARGO_TARGET_DIR:-target}/release/llmatrix" --artifacts "$work/artifacts" run --quiet "$out/gallery.toml" || code=$?
# 5: the gallery has cells that fail, to show how that looks.
[[ $code -eq 0 || $code -eq 5 ]]
page=$(echo "$work"/artifacts/runs/*/report.html)

# picture NAME SCHEME WIDTH HEIGHT [SECTION]: the page from its top, or from a section. Narrower than Chromium's window gets,
# the page is put into a frame of that width.
picture() {
  local name=$1 scheme=$2 width=$3 height=$4 section=${5:-}
  local dark=1
  [[ $scheme == dark ]] && dark=0
  sed "s#</head>#<style>html{scroll-behavior:auto}.scroll.tall{max-height:none}</style></head>#" "$page" >"$work/page.html"
  if [[ -n $section ]]; then
    # Only that section, so that a picture shows what it is of.
    sed -i "s#</head>#<style>header,nav,footer,main > :not(\#$section){display:none!important}main{padding-top:1px}</style></head>#" "$work/page.html"
  fi
  printf '<!doctype html><body style="margin:0;overflow:hidden"><iframe src="page.html" style="border:0;width:%spx;height:%spx"></iframe></body>' \
    "$width" "$height" >"$work/frame.html"
  "$browser" --headless=new --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$work/profile" \
    --blink-settings=preferredColorScheme="$dark" --force-device-scale-factor=1 --virtual-time-budget=5000 \
    --window-size="$width,$height" --screenshot="$work/shot.png" "file://$work/frame.html" >/dev/null 2>&1
  mv "$work/shot.png" "$out/$name-$scheme.png"
  echo "$out/$name-$scheme.png"
}

picture report-top light 1280 1000
picture report-frontier dark 1280 760 frontier
