//! A request is written once: its name stands in one file, and CONTRIBUTING.md shows
//! how to add one with lines that the compiler reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{ImplItem, ItemImpl, LitStr, Macro};

use super::modules::Crate;
use super::{root, source};

/// The texts of a module, and which of them are names of requests.
#[derive(Default)]
struct Texts {
    all: BTreeSet<String>,
    requests: BTreeSet<String>,
}

impl Texts {
    fn of_macro(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.of_macro(group.stream()),
                TokenTree::Literal(literal) => {
                    self.all.extend(
                        syn::parse_str::<LitStr>(&literal.to_string()).map(|text| text.value()),
                    );
                }
                TokenTree::Ident(_) | TokenTree::Punct(_) => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Texts {
    fn visit_lit_str(&mut self, text: &'ast LitStr) {
        self.all.insert(text.value());
    }

    fn visit_macro(&mut self, called: &'ast Macro) {
        self.of_macro(called.tokens.clone());
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        let of_ask = item.trait_.as_ref().and_then(|(.., path, _)| path.segments.last());
        if of_ask.is_some_and(|name| name.ident == "Ask") {
            for inner in &item.items {
                if let ImplItem::Const(constant) = inner
                    && constant.ident == "TYPE"
                {
                    let mut name = Self::default();
                    name.visit_expr(&constant.expr);
                    self.requests.extend(name.all);
                }
            }
        }
        visit::visit_item_impl(self, item);
    }
}

#[test]
fn the_name_of_each_request_stands_in_one_file() {
    let (all, code) = Crate::read(&|file| fs::read_to_string(source().join(file)).ok());
    let (mut files, mut requests) = (BTreeMap::<String, BTreeSet<&str>>::new(), BTreeSet::new());
    for (module, items) in all.modules.iter().zip(&code) {
        let mut texts = Texts::default();
        items.iter().for_each(|item| texts.visit_item(item));
        requests.append(&mut texts.requests);
        for text in texts.all {
            files.entry(text).or_default().insert(&module.file);
        }
    }
    assert!(requests.contains("list_bans") && requests.len() >= 16, "{requests:?}");
    for request in requests {
        assert_eq!(files[&request].len(), 1, "{request} stands in {:?}", files[&request]);
    }
}

#[test]
fn contributing_shows_how_to_add_a_request_as_the_compiler_reads_it() {
    let page = fs::read_to_string(root().join("CONTRIBUTING.md")).expect("a page");
    let section = page.split("\n## ").find(|part| part.starts_with("How to add a request"));
    let shown = section.expect("a section").split("```rust\n").nth(1).expect("code");
    let shown = shown.split("\n```").next().unwrap_or_default();
    let file = source().join("features/example.rs");
    let example = fs::read_to_string(file).expect("the example");
    let code = example.split_once("use crate::protocol::{Answer, Ask};\n\n").expect("imports").1;
    assert_eq!(shown.trim(), code.trim(), "CONTRIBUTING.md shows other lines");
}
