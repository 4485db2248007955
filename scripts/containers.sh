#!/usr/bin/env bash
# Run what deploy/ has for containers, on a Debian machine without a Docker daemon and without a registry of images.
#
#   scripts/containers.sh                  every check
#   scripts/containers.sh image rooms      some of them: image, rooms, compose
#
# It needs root, the network of apt and pip, and Debian's packages podman, runc, netavark, aardvark-dns and debootstrap.
# Base images are stand-ins: Debian's Python, PostgreSQL and Caddy, under the names that deploy/ uses; they are made from
# the minimal machines of scripts/fresh_machines.sh. Everything runs in namespaces of its own and ends with them, in a
# folder below CONTAINERS_FOLDER (/var/tmp), which is removed. STAND_INS names a folder that keeps the stand-ins for
# the next run; PYTHON another interpreter than .venv's; PODMAN_COMPOSE one that is installed, 1.6 or later.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-$PWD/.venv/bin/python}
COMPOSE_VERSION=1.6.0
RELEASES="bookworm trixie"
SELF=scripts/containers.sh
BUILD_WITHIN=1800

die() {
    echo "containers.sh: $*" >&2
    exit 2
}

# The settings of podman that stand in for a daemon and systemd: plain `podman` then works, here and in what it is run by.
configure() {
    local folder=$1 driver=vfs probe=$1/probe limit
    limit=$(ulimit -Hn)
    [ "$limit" = unlimited ] || [ "$limit" -gt 4096 ] && limit=4096
    mkdir -p "$probe/low" "$probe/up" "$probe/work" "$probe/all" "$folder/run" "$folder/tmp"
    if mount -t overlay -o "lowerdir=$probe/low,upperdir=$probe/up,workdir=$probe/work" overlay "$probe/all" 2>/dev/null; then
        umount "$probe/all"
        driver=overlay
    fi
    cat >"$folder/storage.conf" <<END
[storage]
driver = "$driver"
graphroot = "$STORE"
runroot = "$folder/run"
END
    cat >"$folder/containers.conf" <<END
[containers]
default_ulimits = ["nofile=$limit:$limit", "nproc=1000:1000"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
lock_type = "file"
static_dir = "$folder/static"
tmp_dir = "$folder/run/libpod"
volume_path = "$folder/volumes"
[network]
network_backend = "netavark"
network_config_dir = "$folder/networks"
END
    printf 'unqualified-search-registries = ["docker.io"]\n' >"$folder/registries.conf"
    export CONTAINERS_CONF=$folder/containers.conf CONTAINERS_STORAGE_CONF=$folder/storage.conf
    export CONTAINERS_REGISTRIES_CONF=$folder/registries.conf TMPDIR=$folder/tmp
    # buildah's own containers would need what this machine may lack; only the Docker format keeps a HEALTHCHECK;
    # without systemd, whoever wants to know a container's health asks for it.
    export BUILDAH_ISOLATION=chroot BUILDAH_FORMAT=docker DISABLE_HC_SYSTEMD=true
}

build() {
    local name=$1 file=$2
    shift 2
    timeout -k 30 "$BUILD_WITHIN" podman build --quiet --layers=false --file "$CONTEXT/$file" --tag "$name" "$@" "$CONTEXT" \
        >"$FOLDER/build.log" 2>&1 </dev/null || { cat "$FOLDER/build.log" >&2; die "the stand-in for $name cannot be built"; }
}

# Make the stand-ins that the store lacks.
stand_ins() {
    local release base file requirements
    CONTEXT=$FOLDER/context
    mkdir "$CONTEXT"
    cp scripts/containers/stand_ins/* "$CONTEXT"
    for release in $RELEASES; do
        podman image exists "localhost/$release" && continue
        echo "making the machine $release"
        base=$(scripts/fresh_machines.sh --base "$release") || die "see above"
        tar -C "$base" --one-file-system --exclude='./var/cache/apt/archives/*.deb' --exclude='./usr/share/doc/*' \
            --exclude='./usr/share/locale/*' -cf "$FOLDER/tmp/$release.tar" .
        timeout 900 podman import --quiet "$FOLDER/tmp/$release.tar" "localhost/$release" >/dev/null
        rm "$FOLDER/tmp/$release.tar"
    done
    file=python.Containerfile
    if ! podman image exists "$(name_of $file)"; then
        echo "making the stand-in for $(name_of $file)"
        for requirements in build postgres; do
            "$PYTHON" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
                --python-version 3.11 --require-hashes --dest "$CONTEXT/wheels" -r "requirements/$requirements.txt" \
                2>"$FOLDER/pip.log" || { cat "$FOLDER/pip.log" >&2; die "pip cannot get the wheels of requirements/"; }
        done
        build "$(name_of $file)" $file --build-arg MACHINE=localhost/bookworm
    fi
    for file in postgres.Containerfile caddy.Containerfile; do
        podman image exists "$(name_of $file)" && continue
        echo "making the stand-in for $(name_of $file)"
        build "$(name_of $file)" $file --build-arg MACHINE=localhost/trixie --build-arg MIRROR="$(scripts/fresh_machines.sh --mirror)"
    done
}

# The name that a stand-in takes, which its own file says in its first line.
name_of() {
    sed -nE '1s/.* (docker\.io[^ ,]+),.*/\1/p' "scripts/containers/stand_ins/$1"
}

# In namespaces of its own, as their first process, which takes in what others leave behind.
inside() {
    local began=$SECONDS
    FOLDER=$1 STORE=${STAND_INS:-$1/store}
    shift
    # netavark keeps its names and addresses there, whatever its settings say: none of another run may answer here.
    mkdir -p /run/containers
    mount -t tmpfs -o mode=755 networks /run/containers
    configure "$FOLDER"
    # What a run before has left in a store that is kept: this one begins with nothing but the stand-ins.
    podman ps --all --external --quiet | xargs --no-run-if-empty podman rm --force >"$FOLDER/tmp/log" 2>&1 || true
    podman rmi --force whereby-trigger:1 my-assistant >"$FOLDER/tmp/log" 2>&1 || true
    podman image prune --force >"$FOLDER/tmp/log" 2>&1 || true
    stand_ins
    echo "the stand-ins: $((SECONDS - began)) s"
    if [ -z "${PODMAN_COMPOSE:-}" ]; then
        PODMAN_COMPOSE=$FOLDER/tools/bin/podman-compose
        "$PYTHON" -m venv --without-pip "$FOLDER/tools"
        "$PYTHON" -m pip --python "$FOLDER/tools/bin/python" install --quiet --disable-pip-version-check --no-compile \
            "podman-compose==$COMPOSE_VERSION" 2>"$FOLDER/pip.log" ||
            { cat "$FOLDER/pip.log" >&2; die "pip cannot install podman-compose"; }
    fi
    ln -s "$PODMAN_COMPOSE" "$(dirname "$PYTHON")/whereby-trigger" "$FOLDER/"
    # A build needs the machine's network; all else has one of its own, in which every port is free.
    touch "$FOLDER/network"
    mount --bind /proc/self/ns/net "$FOLDER/network"
    unshare --net -- sh -c 'ip link set lo up && exec "$@"' sh \
        env PYTHONPATH=. "$PYTHON" -m scripts.containers --folder "$FOLDER" "$@"
}

if [ "${1:-}" = --inside ]; then
    shift
    inside "$@"
    exit
fi

[ "$(id -u)" = 0 ] || die "only root can run containers here: run it as root"
for tool in podman runc conmon debootstrap ip unshare nsenter; do
    command -v "$tool" >/dev/null || die "$tool is not installed (Debian's packages: podman runc netavark aardvark-dns debootstrap iproute2)"
done
[ -x "$PYTHON" ] || die "there is no $PYTHON: run make venv"

FOLDER=$(mktemp -d "${CONTAINERS_FOLDER:-/var/tmp}/whereby-trigger-containers.XXXXXX")
child=
# unshare ignores TERM. When it is killed, so is the first process of the namespaces.
# Whatever ends this script ends the namespaces, and with them every container, mount and network.
clean_up() {
    [ -z "$child" ] || { kill -KILL "$child" 2>/dev/null && wait "$child"; } || true
    rm -rf --one-file-system "$FOLDER"
    find /sys/fs/cgroup -depth -type d -path '*/libpod_parent/libpod-*' -exec rmdir {} + 2>/dev/null || true
}
trap clean_up EXIT
trap 'exit 130' INT TERM
unshare --mount --propagation private --pid --fork --kill-child --mount-proc -- "$SELF" --inside "$FOLDER" "$@" &
child=$!
wait "$child"
