#!/bin/sh
# Builds ./caddy: Caddy with this module.
#
#   ./xcaddy.sh [--with MODULE[@VERSION][=REPLACEMENT]]... [--pgo PROFILE]
#   ./xcaddy.sh [--with …]... [--pgo …] run [ARGUMENTS OF caddy run]
#
# --with adds a plugin, in xcaddy's own notation. --pgo has the compiler make
# use of a CPU profile of your own load (docs/performance.md says what that
# gains), which takes it some minutes the first time. `run` starts what was built
# on Caddyfile.example. It is built by xcaddy where that is on the PATH, and
# else by the go tool, which comes to the same.
set -eu
here=$PWD
cd "$(dirname "$0")"
root=$PWD

module=github.com/lanyard-proxy/lanyard
xcaddy_version=v0.4.5 # the one this was tried with
tags=nobadger,nomysql,nopgx
ldflags='-s -w'

die() {
	echo "xcaddy.sh: $*" >&2
	exit 1
}

command -v go >/dev/null || die "needs Go $(sed -n 's/^go //p' go.mod) or newer: https://go.dev/dl/"
caddy_version=$(go list -m -f '{{.Version}}' github.com/caddyserver/caddy/v2)

plugins='' # one a line
pgo=auto   # as the go tool has it: there is no default.pgo here, so none
run=''
while [ $# -gt 0 ]; do
	case $1 in
	--with)
		[ $# -gt 1 ] || die '--with needs a module'
		plugins="$plugins$2
"
		shift 2
		;;
	--pgo)
		[ $# -gt 1 ] || die '--pgo needs a file'
		pgo=$(cd "$here" && cd "$(dirname "${2:-}")" 2>/dev/null && pwd)/${2##*/}
		[ -f "$pgo" ] || die '--pgo needs a file: a CPU profile in the form of pprof'
		shift 2
		;;
	run)
		run=1
		shift
		break
		;;
	-h | --help)
		sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
		exit
		;;
	*) die "unknown argument $1: known are --with MODULE, --pgo PROFILE and run" ;;
	esac
done

export CGO_ENABLED=0

# absolute PLUGIN: the same, with a folder as the replacement in full.
absolute() {
	case $1 in
	*=*)
		dir=$(cd "$here" && cd "${1#*=}" 2>/dev/null && pwd) || dir=${1#*=}
		echo "${1%%=*}=$dir"
		;;
	*) echo "$1" ;;
	esac
}

with_xcaddy() {
	case $(xcaddy version) in
	"$xcaddy_version"*) ;;
	*) echo "xcaddy.sh: this was tried with xcaddy $xcaddy_version; going on with $(xcaddy version)" >&2 ;;
	esac
	set -- --with "$module@v0.0.0=$root"
	for plugin in $plugins; do
		set -- "$@" --with "$(absolute "$plugin")"
	done
	XCADDY_GO_BUILD_FLAGS="-tags $tags -trimpath -pgo '$pgo' -ldflags '$ldflags'" \
		xcaddy build "$caddy_version" --output "$root/caddy" "$@"
}

with_go() {
	if [ -z "$plugins" ]; then
		go build -tags "$tags" -trimpath -pgo "$pgo" -ldflags "$ldflags" -o caddy ./cmd/lanyard
		return
	fi
	# What xcaddy does: a main package of its own that imports everything.
	# It begins with our go.mod, so that what is shared has our versions.
	tmp=$(mktemp -d)
	trap 'rm -rf "$tmp"' EXIT INT TERM
	cp go.mod go.sum "$tmp"
	chmod u+w "$tmp"/go.*
	{
		echo 'package main'
		echo 'import caddycmd "github.com/caddyserver/caddy/v2/cmd"'
		echo 'import _ "github.com/caddyserver/caddy/v2/modules/standard"'
		echo "import _ \"$module\""
		for plugin in $plugins; do
			plugin=${plugin%%=*}
			echo "import _ \"${plugin%@*}\""
		done
		echo 'func main() { caddycmd.Main() }'
	} >"$tmp/main.go"
	cd "$tmp"
	go mod edit -module caddy -require "$module@v0.0.0" -replace "$module=$root"
	for plugin in $plugins; do
		plugin=$(absolute "$plugin")
		name=${plugin%%=*}
		case $plugin in
		*=*) go mod edit -require "${name%@*}@v0.0.0" -replace "${name%@*}=${plugin#*=}" ;;
		*) go get "$name" "github.com/caddyserver/caddy/v2@$caddy_version" ;;
		esac
	done
	go build -mod=mod -tags "$tags" -trimpath -pgo "$pgo" -ldflags "$ldflags" -o "$root/caddy" .
	cd "$root"
	rm -rf "$tmp" # exec below would leave it
}

if command -v xcaddy >/dev/null; then
	with_xcaddy
else
	with_go
fi

if [ -z "$run" ]; then
	echo "built ./caddy ($(./caddy version))"
	exit
fi
echo 'Open http://localhost:9083 in a browser. Ctrl-C ends it.'
exec ./caddy run --config Caddyfile.example --adapter caddyfile "$@"
