//! The reader of imports, on trees small enough to see through.

use super::map::{rows_of, table};
use super::{House, Id};

fn house(files: &[(&str, &str)]) -> House {
    House::read(&|name| {
        files.iter().find(|(file, _)| *file == name).map(|(_, text)| (*text).to_owned())
    })
}

fn module(house: &House, path: &str) -> Id {
    let modules = &house.all.modules;
    let found = modules.iter().position(|module| module.path.join("::") == path);
    found.unwrap_or_else(|| panic!("there is no {path}"))
}

/// The places where one module imports a sibling.
fn places(house: &House, from: &str, to: &str) -> Vec<String> {
    house.graph.places(&house.all, module(house, from), module(house, to))
}

/// The siblings that a module imports.
fn imports(house: &House, from: &str) -> Vec<String> {
    let imports = house.graph.imports_of(&house.all, module(house, from));
    imports.into_iter().map(|id| house.all.name_of(id).to_owned()).collect()
}

/// What `a` imports, of the crate with the rooms `a`, `b` and `c`.
fn imports_of_a(text: &str) -> Vec<String> {
    let files = [
        ("lib.rs", "mod a; mod b; mod c; pub fn at_the_root() {}"),
        ("a.rs", text),
        ("b.rs", "pub struct Thing; pub fn run() {} pub mod inner { pub fn deep() {} }"),
        ("c.rs", "pub struct Other; pub use crate::b::Thing; pub enum Kind { One }"),
    ];
    imports(&house(&files), "a")
}

#[test]
fn imports_are_seen_however_they_are_written() {
    for (text, expected) in [
        ("use crate::{b, c::Other};", vec!["b", "c"]),
        ("use crate::{b::{self, inner::{deep}}};", vec!["b"]),
        ("use crate::b as renamed; fn f() { renamed::run() }", vec!["b"]),
        ("use crate::c::*;", vec!["c"]),
        ("use super::b::Thing;", vec!["b"]),
        ("use self::super::b::Thing;", vec!["b"]),
        ("fn f() { use crate::b::run; run() }", vec!["b"]),
        ("use crate::c::Kind::One;", vec!["c"]),
        ("mod below { fn f() { super::super::b::run() } }", vec!["b"]),
        ("mod below { mod lower { use super::super::super::c::Other; } }", vec!["c"]),
        ("use super::*; fn f() { b::run() }", vec!["b"]),
    ] {
        assert_eq!(imports_of_a(text), expected, "{text}");
    }
}

#[test]
fn paths_are_seen_wherever_they_stand() {
    for (text, expected) in [
        ("fn f() { crate::b::inner::deep() }", vec!["b"]),
        ("fn f(x: Vec<crate::b::Thing>) {}", vec!["b"]),
        ("struct S<T: Into<super::c::Other>>(T);", vec!["c"]),
        ("fn f(x: u8) { match x { crate::c::LIMIT => {} _ => {} } }", vec!["c"]),
        ("impl crate::b::Thing { fn f() -> super::c::Other { loop {} } }", vec!["b", "c"]),
        ("#[crate::b::made] fn f() {}", vec!["b"]),
        ("#[derive(crate::b::Made)] struct S;", vec!["b"]),
        ("struct S { #[serde(with = \"crate::b::inner\")] x: u8 }", vec!["b"]),
        ("fn f() { println!(\"{}\", crate::b::run()) }", vec!["b"]),
        ("fn f() { select! { x = super::c::next() => { [self::g(x)] } } }", vec!["c"]),
        ("macro_rules! m { () => { $crate::b::run() } }", vec!["b"]),
        ("lazy! { use crate::{b::Thing, c}; }", vec!["b", "c"]),
        ("use crate::b; fn f() { assert!(b::run()) }", vec!["b"]),
        ("fn f() { assert!((0..super::c::LIMIT).contains(1)) }", vec!["c"]),
    ] {
        assert_eq!(imports_of_a(text), expected, "{text}");
    }
}

#[test]
fn what_is_no_import_is_none() {
    for text in [
        "fn f() { crate::at_the_root() }",
        "use super::at_the_root;",
        "use ::b::run; fn f() { ::c::run() }",
        "use b::run; fn f() { c::run() }",
        "pub(in crate) fn f(b: u8) -> u8 { b }",
        "/// As [`crate::b::run`].\nfn f() {} // crate::c::Other",
        "fn f() { g(\"crate::b::run\") }",
        "mod b { pub fn run() {} } fn f() { b::run() }",
        "use super::*; fn f(b: u8, c: u8) -> u8 { b + c }",
        "fn f() { assert!(x.b::<u8>(), c = 1) }",
    ] {
        assert!(imports_of_a(text).is_empty(), "{text}: {:?}", imports_of_a(text));
    }
}

#[test]
fn what_only_tests_have_is_left_out_wherever_it_stands() {
    let text = "
        #[cfg(test)] use crate::c::Other;
        #[cfg(test)] mod tests { use crate::c::Other; }
        #[cfg(all(unix, test))] fn f() { crate::c::run() }
        #[cfg(any(test))] const C: u8 = crate::c::LIMIT;
        struct S { #[cfg(test)] x: crate::c::Other }
        impl S { #[cfg(test)] fn g(&self) -> crate::c::Other { loop {} } }
        fn h(&mut x: u8) {
            #[cfg(test)] crate::c::check(x);
            #[cfg(test)] x += crate::c::LIMIT;
            #[cfg(test)] let y = crate::c::LIMIT;
            #[cfg(test)] assert!(crate::c::holds());
            match x { #[cfg(test)] crate::c::LIMIT => {} _ => {} }
        }
        #[cfg_attr(test, derive(crate::c::Made))] struct T;
        #[cfg(test)] mod missing;
        fn after_all_that() { crate::b::run() }";
    assert_eq!(imports_of_a(text), ["b"]);
}

#[test]
fn what_a_feature_or_a_platform_decides_counts() {
    for text in [
        "#[cfg(feature = \"x\")] use crate::b::Thing;",
        "#[cfg(any(test, feature = \"x\"))] use crate::b::Thing;",
        "#[cfg(not(test))] use crate::b::Thing;",
        "#[cfg(all(unix, not(test)))] use crate::b::Thing;",
        "#[cfg_attr(unix, derive(crate::b::Made))] struct S;",
    ] {
        assert_eq!(imports_of_a(text), ["b"], "{text}");
    }
}

#[test]
fn a_re_export_is_an_import_of_the_module_that_defines_it() {
    for text in [
        "use crate::c::Thing;",
        "use crate::c; fn f(x: c::Thing) {}",
        "use crate::c::*; fn f(x: Thing) {}",
        "fn f() -> super::c::Thing { loop {} }",
    ] {
        assert!(imports_of_a(text).contains(&"b".to_owned()), "{text}");
    }
    assert_eq!(imports_of_a("use crate::c::Thing;"), ["b"]);
}

#[test]
fn a_re_export_of_what_is_below_is_followed_to_its_sibling() {
    let files = [
        ("lib.rs", "mod room;"),
        ("room.rs", "mod one; mod two; pub use one::*; use two::Two;"),
        ("room/one.rs", "pub struct One; pub fn two(x: super::Two) {}"),
        ("room/two.rs", "pub struct Two;"),
    ];
    let house = house(&files);
    assert_eq!(places(&house, "room::one", "room::two"), ["room/one.rs:1"]);
    assert!(imports(&house, "room::two").is_empty());
    assert!(house.graph.cycles(&house.all).is_empty());
}

#[test]
fn names_that_are_imported_in_a_circle_end() {
    let files = [
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "pub use crate::b::*; pub use crate::b::x; pub fn f() { y::z() }"),
        ("b.rs", "pub use crate::a::*; pub use crate::a::x;"),
    ];
    assert_eq!(house(&files).graph.cycles(&house(&files).all).len(), 1);
}

#[test]
fn an_edge_is_where_it_is_written() {
    let files = [
        ("lib.rs", "mod a;\nmod b;"),
        ("a.rs", "mod below;"),
        (
            "a/below.rs",
            "use std::{\n    fmt,\n};\nuse crate::{\n    b::Thing,\n};\nfn f(x: Thing) {}",
        ),
        ("b.rs", "pub struct Thing;"),
    ];
    assert_eq!(places(&house(&files), "a", "b"), ["a/below.rs:5"]);
}

#[test]
fn a_cycle_of_three_is_one_and_is_printed_with_its_edges() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c; mod d;"),
        ("a.rs", "use crate::b::run;"),
        ("b.rs", "mod below;"),
        ("b/below.rs", "\nfn f() { crate::c::run() }"),
        ("c.rs", "use super::{\n    a::f,\n    d,\n};"),
        ("d.rs", ""),
    ];
    let house = house(&files);
    let cycles = house.graph.cycles(&house.all);
    assert_eq!(
        cycles,
        ["in crate, a cycle of 3: a, b, c\n  shortest: a -> b -> c -> a\n  a.rs:1 -> b\n  \
          b/below.rs:2 -> c\n  c.rs:2 -> a\n"]
    );
}

#[test]
fn two_cycles_are_told_apart_and_one_below_the_top_is_seen() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c; mod d;"),
        ("a.rs", "use crate::{b, c};"),
        ("b.rs", "use crate::a;"),
        ("c.rs", "use crate::d; mod one { use super::two; } mod two { use super::one; }"),
        ("d.rs", "use crate::c;"),
    ];
    let house = house(&files);
    let heads: Vec<String> = house.graph.cycles(&house.all);
    let heads: Vec<&str> = heads.iter().filter_map(|cycle| cycle.lines().next()).collect();
    let expected = [
        "in crate, a cycle of 2: a, b",
        "in crate, a cycle of 2: c, d",
        "in crate::c, a cycle of 2: one, two",
    ];
    assert_eq!(heads, expected);
}

#[test]
fn a_tree_without_a_cycle_has_none() {
    let files = [
        ("lib.rs", "pub mod a; mod b; mod c; pub use a::Top; pub struct Root;"),
        ("a.rs", "mod one; mod two; use crate::{b, c}; pub struct Top;"),
        ("a/one.rs", "use super::{Top, two::two}; use crate::{Root, b::B};"),
        ("a/two.rs", "pub fn two(x: super::Top) {}"),
        ("b.rs", "use crate::c::C; pub struct B;\n#[cfg(test)] mod tests { use crate::a::Top; }"),
        ("c.rs", "use crate::Root; pub struct C;"),
    ];
    let house = house(&files);
    assert!(house.graph.cycles(&house.all).is_empty());
    assert_eq!(imports(&house, "a::one"), ["two"]);
    assert_eq!(imports(&house, "a"), ["b", "c"]);
}

#[test]
fn the_map_is_brought_into_order_and_keeps_its_sentences() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c; mod d;"),
        ("a.rs", "use crate::{b, c};"),
        ("b.rs", "use crate::c;"),
        ("c.rs", ""),
        ("d.rs", ""),
    ];
    let house = house(&files);
    let page = "# Page\n\n| room | what it is | uses |\n| --- | --- | --- |\n\
                | `d` | last | |\n| `a` | the top | `b` |\n| `gone` | was | |\n| `c` | ground | |\n\n\
                | other | table |\n";
    let right = "| room | what it is | uses |\n| --- | --- | --- |\n| `d` | last |  |\n\
                 | `c` | ground |  |\n| `b` | (one sentence) | `c` |\n| `a` | the top | `b`, `c` |";
    assert_eq!(table(&house.all, &house.graph, &rows_of(page)), right);
    assert_eq!(table(&house.all, &house.graph, &rows_of(right)), right);
}
