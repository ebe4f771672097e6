#!/bin/sh
# Builds census.bpf.o from census.bpf.c, with Debian's clang and llvm-strip:
#
#   exporter/bpf/build.sh [OUTPUT]     CLANG and LLVM_STRIP name other programs
#
# Only who changes census.bpf.c needs this. `tests/tools.sh clang` brings both.
set -eu
directory=$(dirname "$0")
output=${1:-$directory/census.bpf.o}
version=14
clang=${CLANG:-clang-$version}
strip=${LLVM_STRIP:-llvm-strip-$version}
"$clang" -O2 -g -Wall -Wextra -Werror -target bpfel -ffile-prefix-map="$directory"= \
    -c "$directory/census.bpf.c" -o "$output"
# The BTF that the loader needs stays; the DWARF goes.
"$strip" -g "$output"
