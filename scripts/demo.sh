#!/bin/sh
# What `make demo` runs once all is installed: fetch documents, ingest them with live progress, find what they speak of
# and what belongs together, ask them a question, and draw a picture. About half a minute.
# Jobs and documents are kept in .demo/, so a second run says that there is nothing to do and a killed one goes on
# where it was. `. .demo/env` lets a shell see them.
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

Those were three tracked jobs on real documents. A picture: .demo/entities.svg
To go on with what they have made:

  . .demo/env                      gives this shell the milepost command
  milepost search "..."            ask something else
  milepost entities                what the documents speak of
  milepost run ingestion PATH...   ingest your own files or folders
  milepost serve                   these jobs in a browser, and over HTTP
  make demo                        again: there is nothing left to do
  make test                        run the tests
END
