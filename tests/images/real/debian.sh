# Sourced by real-vllm.sh and real-triton.sh: a Debian root with Python, packages of PyPI beside it, and images of both,
# without a container registry. What is made is kept in the cache directory and in the container engine.

# The release whose Python is the one that the lists of packages are made for.
readonly SUITE=bookworm PYTHON=3.11
readonly SITE="usr/local/lib/python$PYTHON/dist-packages"
readonly UV=uv==0.13.9

say() { printf 'real images: %s\n' "$*" >&2; }
die() {
  say "$*"
  exit 1
}

# Package of Debian, and the command that tells whether it is there.
need() {
  command -v "$2" >/dev/null && return
  command -v apt-get >/dev/null || die "$2 is missing, and there is no apt-get to install $1 with"
  [[ $EUID -eq 0 ]] || die "$2 is missing: as root, apt-get install $1"
  say "installs $1, for $2"
  if [[ -z ${apt_updated:-} ]]; then
    apt-get update -qq || die "apt-get update failed: Debian's packages cannot be reached"
    apt_updated=yes
  fi
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" >/dev/null ||
    die "cannot install $1"
}

# Sets `here`, `cache` and `recipe`: the hash of what the image is made from, which beside this file and the script are
# the named files. The script's own arguments follow them.
prepare() {
  here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  local parts=("$here/debian.sh" "$here/cuda_stubs.py" "$here/../$(basename "$0")")
  while [[ $1 != -- ]]; do
    parts+=("$here/$1")
    shift
  done
  shift
  cache=${1:-${LLMATRIX_REAL_CACHE:-$here/../../../target/real}}
  mkdir -p "$cache" || die "cannot make the cache directory $cache"
  cache=$(cd "$cache" && pwd)
  recipe=$(cat "${parts[@]}" | sha256sum | cut -c1-16)
  [[ $(uname -m) == x86_64 ]] || die "the packages are made for x86_64, this is $(uname -m)"
  docker version >/dev/null 2>&1 || die "no container engine answers: docker version"
  need python3 python3
  python3 "$here/tiny_llama.py" "$cache/tiny-llama" || die "cannot make the model"
  say "the model is $cache/tiny-llama"
}

# Whether the image is there, made from this very recipe.
is_made() {
  [[ $(docker image inspect --format '{{ index .Config.Labels "llmatrix.recipe" }}' "$1" 2>/dev/null) == "$recipe" ]]
}

# A minimal Debian with Python at $cache/debian, and as the image that packages are compiled in.
debian() {
  [[ $EUID -eq 0 ]] || die "a Debian root is made as root"
  need debootstrap debootstrap
  if [[ ! -e $cache/debian/.complete ]]; then
    say "makes a Debian root in $cache/debian"
    rm -rf "$cache/debian"
    debootstrap --variant=minbase --include=python3,libpython$PYTHON,libnuma1,libgomp1 "$SUITE" "$cache/debian" \
      http://deb.debian.org/debian >"$cache/debootstrap.log" 2>&1 ||
      die "debootstrap failed: $(tail -n 3 "$cache/debootstrap.log" | tr '\n' ' ')"
    rm -rf "$cache"/debian/var/cache/apt/* "$cache"/debian/var/lib/apt/lists/* "$cache"/debian/usr/share/{doc,man,locale}
    touch "$cache/debian/.complete"
  fi
}

# Packages of a list, into a directory that becomes the image's /.
packages() {
  local list=$1 root=$2
  say "installs $(grep -c '^[^#]' "$list") packages into $root"
  rm -rf "$root"
  mkdir -p "$root/$SITE"
  # Links instead of copies need one file system.
  UV_CACHE_DIR="$cache/uv" UV_NO_CONFIG=1 "$(uv_program)" pip install --quiet --no-deps --target "$root/$SITE" \
    --python-version "$PYTHON" --python-platform x86_64-manylinux_2_35 --only-binary :all: -r "$list" ||
    die "cannot install the packages of $list"
  need build-essential cc
  need binutils readelf
  python3 "$here/cuda_stubs.py" "$root/$SITE" >&2 || die "cannot stand in for CUDA"
  # What only a compiler or a GPU would use.
  rm -rf "$root/$SITE"/torch/{include,share,lib/libtorch_cuda_linalg.so} "$root/$SITE"/nvidia/*/include
  find "$root/$SITE/nvidia" -name '*.so*' -not -name 'libcudart.so*' -not -name 'libcupti.so*' -delete
}

# A uv that works: the one that is here, or one of its own.
uv_program() {
  local own="$cache/tools/bin/uv"
  if command uv --version >/dev/null 2>&1; then
    command -v uv
  elif [[ -x $own ]] || pip_install; then
    echo "$own"
  else
    die "cannot install $UV: python3 -m pip install $UV"
  fi
}

pip_install() {
  python3 -m pip --version >/dev/null 2>&1 || need python3-pip pip3
  python3 -m pip install --quiet --target "$cache/tools" "$UV" >&2
}

# Byte code for all of it: without, every start compiles anew, which takes minutes.
compile() {
  local base=llmatrix-real/debian:$recipe
  say "compiles the packages in $1"
  tar -C "$cache/debian" -c . | docker import - "$base" >/dev/null || die "cannot import the Debian root"
  docker run --rm --network none --env PYTHONDONTWRITEBYTECODE= --volume "$1/usr/local:/usr/local" "$base" \
    python3 -m compileall -q -j "$(nproc)" "/$SITE" >"$cache/compileall.log" 2>&1 ||
    # Some packages ship files that are no Python of this version.
    say "not everything compiles: $(grep -c '^\*\*\*' "$cache/compileall.log") files, see $cache/compileall.log"
  docker image rm "$base" >/dev/null
}

# Directory, image, and the instructions of the image.
import() {
  local root=$1 image=$2 changes=()
  shift 2
  for change in "$@" "LABEL llmatrix.recipe=$recipe"; do changes+=(--change "$change"); done
  say "imports $image"
  # One tree of links: the engine takes no archive that has a directory twice.
  rm -rf "$cache/merged"
  cp -al "$cache/debian" "$cache/merged"
  cp -al "$root/." "$cache/merged/"
  tar --numeric-owner -C "$cache/merged" -c . | docker import "${changes[@]}" - "$image" >/dev/null ||
    die "cannot import $image: docker system df tells whether the disk is full"
  rm -rf "$cache/merged"
  say "$image is made"
}
