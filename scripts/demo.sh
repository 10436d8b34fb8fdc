#!/bin/sh
# `make demo` after the installation: fetch documents, ingest them with live progress, extract entities, cluster them, search,
# and draw a picture. About half a minute. Jobs and documents are stored in .demo/, so that a second run has nothing to do and
# a killed run is resumed. `. .demo/env` lets a shell use them.
set -eu

mkdir -p .demo
cat >.demo/env <<END
# In a shell: . .demo/env
unset REDIS_URL MILEPOST_URL MILEPOST_DOCUMENTS # the demo shows the embedded default
export PATH="$PWD/.venv/bin:\$PATH"
export XDG_STATE_HOME="$PWD/.demo/state" # jobs
export XDG_DATA_HOME="$PWD/.demo/data" # documents
END
. .demo/env

show() { printf '\n$ %s\n' "$1"; }

python scripts/demo_corpus.py .demo/corpus

case "$(ls .demo/corpus)" in
  *.html*) question="Which release was named after a Toy Story character?" entity="Ian Murdock" ;; # Debian's history
  *) question="How do I handle an exception?" entity="ValueError" ;; # the topics of Python's own help
esac

show "milepost run ingestion .demo/corpus"
milepost run ingestion .demo/corpus

show "milepost run extraction"
milepost run extraction

show "milepost run clustering"
milepost run clustering

show "milepost search -k 3 \"$question\""
milepost search -k 3 "$question"

show "milepost neighbours -n 8 \"$entity\""
milepost neighbours -n 8 "$entity"

show "milepost communities --level 0 -n 8"
milepost communities --level 0 -n 8

show "milepost draw .demo/entities.svg"
milepost draw .demo/entities.svg

show "milepost ls"
milepost ls

cat <<END

Three tracked jobs have processed real documents. The entity graph is in .demo/entities.svg
To continue with the results:

  . .demo/env                      add the milepost command to this shell
  milepost search "..."            search again
  milepost entities                list the entities
  milepost run ingestion PATH...   ingest your own files or folders
  make static                      build the dashboard, once
  milepost serve                   show the jobs in a browser, and serve them over HTTP
  make demo                        run it again; nothing is left to do
  make test                        run the tests
END
