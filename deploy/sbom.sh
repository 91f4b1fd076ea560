#!/usr/bin/env bash
# Writes what the program is built from as CycloneDX 1.5 JSON to standard output:
# every package that a build for this platform takes in, development tools left
# out. The same lock file gives the same list.
#
#   deploy/sbom.sh > sbom.cdx.json
set -euo pipefail
cd "$(dirname "$0")/.."

command -v jq >/dev/null || {
  echo "sbom.sh: the command jq is missing; install it (Debian: apt-get install jq)" >&2
  exit 1
}

host="$(rustc -vV | sed -n 's/^host: //p')"
cargo metadata --locked --format-version 1 --filter-platform "$host" | jq --sort-keys '
  (.packages | map({key: .id, value: .}) | from_entries) as $packages
  # What a node needs to be built or to run; not what its tests need.
  | (.resolve.nodes
     | map({key: .id, value: [.deps[] | select(any(.dep_kinds[]; .kind != "dev")) | .pkg]})
     | from_entries) as $needs
  | .resolve.root as $root
  | {seen: {($root): true}, next: [$root]}
  | until(.next == [];
      .seen as $seen
      | ([.next[] | $needs[.][]] | unique | map(select($seen[.] | not))) as $new
      | {seen: ($seen + ($new | map({key: ., value: true}) | from_entries)), next: $new})
  | .seen as $seen
  | def ref: $packages[.] | "pkg:cargo/\(.name)@\(.version)";
    {
      bomFormat: "CycloneDX",
      specVersion: "1.5",
      version: 1,
      metadata: {component: ($packages[$root]
        | {type: "application", "bom-ref": ($root | ref), name, version})},
      components: [$seen | keys[] | select(. != $root) | . as $id | $packages[.]
        | {type: "library", "bom-ref": ($id | ref), name, version, purl: ($id | ref)}
          + (if .license
             then {licenses: [{expression: (.license | gsub(" */ *"; " OR "))}]}
             else {} end)],
      dependencies: [$seen | keys[]
        | {ref: ref, dependsOn: ([$needs[.][] | select($seen[.]) | ref] | unique)}]
    }'
