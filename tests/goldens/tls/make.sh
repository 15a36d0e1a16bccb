#!/usr/bin/env bash
# Makes an authority and the certificate of a server at 127.0.0.1 from it, valid from 2020 to 2120, for tests alone:
# ca.pem, server.pem and server.key in the folder given. Needs openssl (3.0).
set -euo pipefail
mkdir -p "$1/issued" && cd "$1"
cat > make.cnf <<'CONFIG'
[ca]
default_ca = here
[here]
database = issued/index
serial = issued/serial
new_certs_dir = issued
default_md = sha256
policy = any
unique_subject = no
default_startdate = 20200101000000Z
default_enddate = 21200101000000Z
[any]
commonName = supplied
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
subjectAltName = IP:127.0.0.1
CONFIG
: > issued/index
echo 01 > issued/serial
key() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$1" -keyout "$2.key" -out "$2.csr"; }
key "an authority for tests" ca
openssl ca -config make.cnf -batch -notext -selfsign -keyfile ca.key -in ca.csr -extensions authority -out ca.pem
key "a server for tests" server
openssl ca -config make.cnf -batch -notext -cert ca.pem -keyfile ca.key -in server.csr -extensions server -out server.pem
rm -r issued make.cnf ca.key ca.csr server.csr
