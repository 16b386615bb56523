#!/bin/sh
# Debian 12 has no cbmc, but Debian 13 has. Unpacks it and the libraries that it needs into a
# directory, and writes there the commands cbmc, goto-cc and goto-instrument, which use these
# libraries. Nothing is installed.  sh tests/cbmc.sh build/cbmc

set -e
mkdir -p "$1/lists/partial" "$1/cache/archives/partial"
cd "$1"
here=$(pwd)
from=$(apt-get indextargets --format '$(REPO_URI)' | grep '/debian/*$' | sort -u | head -n 1)
[ -n "$from" ]
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $from trixie main" >source.list
apt() {
    apt-get -qq -o Dir::Etc::SourceList="$here/source.list" -o Dir::Etc::SourceParts=- \
            -o Dir::State::Lists="$here/lists" -o Dir::Cache="$here/cache" \
            -o APT::Sandbox::User=root "$@"
}
apt update
apt download cbmc minisat libc6 libstdc++6 libgcc-s1
for package in *.deb; do dpkg-deb -x "$package" root; done
rm -rf lists cache ./*.deb
loader=$(find "$here/root" -name 'ld-linux-x86-64.so.2' -type f | head -n 1)
[ -n "$loader" ]
for name in cbmc goto-cc goto-instrument; do
    echo "#!/bin/sh" >$name
    echo "exec '$loader' --library-path '$(dirname "$loader"):$here/root/usr/lib' \\" >>$name
    echo "     '$here/root/usr/bin/$name' \"\$@\"" >>$name
    chmod +x $name
done
./cbmc --version >version
