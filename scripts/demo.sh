#!/bin/sh
# What `make demo` runs once all is installed: fetch documents, ingest them with live progress, find what they speak of
# and what belongs together, ask them a question, and draw a picture. About a minute.
# Jobs and documents are kept in .demo/, so a second run says `unchanged` and a killed one goes on where it was.
set -eu
unset REDIS_URL MILEPOST_URL MILEPOST_DOCUMENTS || true  # the demo shows the embedded default
PATH="$PWD/.venv/bin:$PATH"
XDG_STATE_HOME="$PWD/.demo/state" # jobs
XDG_DATA_HOME="$PWD/.demo/data"   # documents
export PATH XDG_STATE_HOME XDG_DATA_HOME

show() { printf '\n$ %s\n' "$1"; }

mkdir -p .demo
python scripts/demo_corpus.py .demo/corpus

show "milepost run ingestion .demo/corpus"
milepost run ingestion .demo/corpus

case "$(ls .demo/corpus)" in
  *.html*) question="Which release was named after a Toy Story character?" ;; # the history of Debian
  *) question="How do I handle an exception?" ;;                                     # the topics of Python's own help
esac
show "milepost run extraction"
milepost run extraction

show "milepost run clustering"
milepost run clustering

show "milepost search -k 3 \"$question\""
milepost search -k 3 "$question"

show "milepost communities --level 0 -n 8"
milepost communities --level 0 -n 8

show "python -m milepost.documents.drawing .demo/entities.svg"
python -m milepost.documents.drawing .demo/entities.svg

show "milepost ls"
milepost ls

cat <<'END'

Those were three tracked jobs on real documents. Next:
  open .demo/entities.svg                    the picture, in a browser
  make demo                                  again: nothing changed, so nothing is computed
  export XDG_STATE_HOME="$PWD/.demo/state" XDG_DATA_HOME="$PWD/.demo/data"
                                             so that the commands below see what the demo made
  .venv/bin/milepost search "..."            ask something else
  .venv/bin/milepost neighbours "Ian Murdock"
                                             what an entity is related to
  .venv/bin/milepost run ingestion PATH...   ingest your own files or folders
  .venv/bin/milepost serve                   the same jobs over HTTP
  make test                                  run the tests
END
