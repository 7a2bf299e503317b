#!/bin/sh
# Runs all tests: builds ./caddy, then go vet and go test -race on everything.
#
# What the tests need and this machine lacks is installed where this runs as
# root on Debian (containers, CI), and else listed: the tests that need it are
# then skipped. With CI=true a tool that is missing ends the run.
# Arguments are passed on to go test, such as -run NAME.
set -eu
cd "$(dirname "$0")"

tags=nobadger,nomysql,nopgx
# the npm packages that the e2e tests use
npms='internal/e2e/oidcprovider internal/e2e/axe examples/express-app'

command -v go >/dev/null || {
	echo "test.sh: needs Go $(sed -n 's/^go //p' go.mod) or newer: https://go.dev/dl/" >&2
	exit 1
}

# missing_tools prints the Debian packages of the tools that are not here.
missing_tools() {
	for tool in cc:gcc chromium:chromium node:nodejs npm:npm python3:python3 nginx:nginx-light pgbouncer:pgbouncer runc:runc; do
		PATH=$PATH:/usr/sbin command -v "${tool%:*}" >/dev/null || printf '%s ' "${tool#*:}"
	done
	# Debian has the server's programs in no PATH.
	PATH=$PATH:$(printf '%s:' /usr/lib/postgresql/*/bin) command -v initdb >/dev/null || printf 'postgresql '
}

missing=$(missing_tools)
if [ -n "$missing" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	echo "== installing: $missing"
	# shellcheck disable=SC2086 # one word each
	{ apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $missing libc6-dev; } || true
	missing=$(missing_tools)
fi
for dir in $npms; do
	installed=$dir/node_modules/.package-lock.json # npm writes it last
	if [ -f "$dir/package-lock.json" ] && [ ! -f "$installed" ] && command -v npm >/dev/null; then
		echo "== npm ci in $dir"
		(cd "$dir" && npm ci --ignore-scripts --no-audit --no-fund) || true
	fi
	if [ -f "$dir/package-lock.json" ] && [ ! -f "$installed" ]; then
		missing="$missing$dir/node_modules "
	fi
done
if [ -n "$missing" ]; then
	echo "== missing: $missing"
	if [ "${CI:-}" = true ]; then
		echo 'test.sh: with CI=true nothing may be missing' >&2
		exit 1
	fi
	echo '   the tests that need it are skipped'
fi
race='' # its detector needs a C compiler
if command -v cc >/dev/null; then
	race=-race
	export CGO_ENABLED=1
fi

echo '== build'
./xcaddy.sh
LANYARD_BIN=$PWD/caddy
export LANYARD_BIN

echo '== go vet'
CGO_ENABLED=0 go vet -trimpath -tags "$tags" ./... # compiled as ./caddy was
for module in client deploy examples/go-app; do
	(cd "$module" && go vet ./...)
done

echo "== go test $race"
log=$(mktemp)
trap 'rm -f "$log"' EXIT INT TERM
# shellcheck disable=SC2086 # nothing where it is empty
{
	go test $race -tags "$tags" -timeout 20m "$@" ./... 2>&1 || echo 'test.sh: failed'
	# by itself; internal/e2e runs it with a Lanyard
	(cd client && go test $race "$@" ./... 2>&1) || echo 'test.sh: failed'
	# nothing in it runs at once; go test does not see that ./caddy is another
	(cd deploy && CGO_ENABLED=0 go test -count=1 "$@" ./... 2>&1) || echo 'test.sh: failed'
} | tee "$log"

passed=$(grep -c '^ok ' "$log") || true
failed=$(grep -c '^FAIL[[:space:]]' "$log") || true
echo
if grep -q '^test.sh: failed' "$log"; then
	echo "FAILED: $failed of $((passed + failed)) packages"
	exit 1
fi
echo "passed: $passed packages, ./caddy is $(($(wc -c <caddy) / 1048576)) MB${missing:+; skipped for want of: $missing}"
