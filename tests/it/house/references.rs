//! Every place where a module's code names something of another module: imports,
//! paths in expressions, types and patterns, attributes, and the bodies of macros.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, Ident, Item, Lit, Stmt, UseTree};

use super::conditions::{applies, is_for_tests_only, of_expression, of_item};
use super::modules::{Code, Crate, Id};
use super::names::{Import, Names, Scope, Target, imports_of, take_apart};

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    pub from: Id,
    pub to: Id,
    pub line: usize,
}

/// All references of a crate between different modules. The uses of a name that
/// was imported are left out where the import itself leads to the same module.
pub fn references_of(all: &Crate, code: &Code) -> BTreeSet<Reference> {
    let names = Names::of(all, code);
    let (mut found, mut by_import) = (BTreeSet::new(), BTreeSet::new());
    for (at, items) in code.iter().enumerate() {
        let blocks = Vec::new();
        let mut reader =
            Reader { names: &names, at, blocks, found: &mut found, by_import: &mut by_import };
        for item in items {
            reader.visit_item(item);
        }
    }
    let said: BTreeSet<(Id, Id)> = found.iter().map(|one| (one.from, one.to)).collect();
    found.extend(by_import.into_iter().filter(|one| !said.contains(&(one.from, one.to))));
    found
}

struct Reader<'a> {
    names: &'a Names<'a>,
    at: Id,
    /// The names that the blocks around bring in, the innermost last.
    blocks: Vec<Scope>,
    found: &'a mut BTreeSet<Reference>,
    /// Those that begin with a name that was imported.
    by_import: &'a mut BTreeSet<Reference>,
}

impl Reader<'_> {
    fn record(&mut self, path: &[Ident], may_be_module: bool) {
        let Some(last) = path.last() else { return };
        let words: Vec<String> = path.iter().map(Ident::to_string).collect();
        let is_by_import = self.names.is_imported(self.at, &self.blocks, &words[0]);
        for target in self.names.resolve(self.at, &self.blocks, &words) {
            let to = match target {
                Target::Item(to) => to,
                Target::Module(to) if may_be_module => to,
                // A variable that is called as a module is.
                Target::Module(_) => continue,
            };
            if to != self.at {
                let line = last.span().start().line;
                let found = if is_by_import { &mut self.by_import } else { &mut self.found };
                found.insert(Reference { from: self.at, to, line });
            }
        }
    }

    fn record_imports(&mut self, imports: &[Import]) {
        for import in imports {
            self.record(&import.path, true);
        }
    }

    /// The paths of two names and more in the tokens of a macro. A single name
    /// may be a variable or a field there.
    fn scan(&mut self, tokens: TokenStream) {
        let trees: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < trees.len() {
            let start = at;
            at += 1;
            match &trees[start] {
                TokenTree::Group(group) => self.scan(group.stream()),
                TokenTree::Ident(first) => {
                    let mut path = vec![first.clone()];
                    while let (true, Some(TokenTree::Ident(next))) =
                        (is_colons(&trees, at), trees.get(at + 2))
                    {
                        path.push(next.clone());
                        at += 3;
                    }
                    let goes_on =
                        (start >= 2 && is_colons(&trees, start - 2)) || is_field(&trees, start);
                    if !goes_on {
                        self.record_scanned(path, &trees, at);
                    }
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }

    /// A path that was found among tokens, and what follows it.
    fn record_scanned(&mut self, mut path: Vec<Ident>, trees: &[TokenTree], at: usize) {
        if let (true, Some(TokenTree::Group(group))) = (is_colons(trees, at), trees.get(at + 2))
            && group.delimiter() == Delimiter::Brace
            && let Ok(tree) =
                syn::parse2::<UseTree>(TokenStream::from_iter([trees[at + 2].clone()]))
        {
            let mut imports = Vec::new();
            take_apart(&tree, &mut path, &mut imports);
            self.record_imports(&imports);
        } else if path.len() > 1 {
            self.record(&path, true);
        }
    }

    /// The paths that an attribute has in strings, as serde's do.
    fn scan_strings(&mut self, tokens: TokenStream) {
        for tree in tokens {
            match tree {
                TokenTree::Group(group) => self.scan_strings(group.stream()),
                TokenTree::Literal(literal) => {
                    if let Lit::Str(text) = Lit::new(literal)
                        && let Ok(path) = text.parse::<syn::Path>()
                        && path.segments.len() > 1
                    {
                        self.visit_path(&path);
                    }
                }
                TokenTree::Ident(_) | TokenTree::Punct(_) => {}
            }
        }
    }
}

/// Whether `::` begins here.
fn is_colons(trees: &[TokenTree], at: usize) -> bool {
    let is_colon =
        |at: usize| matches!(trees.get(at), Some(TokenTree::Punct(sign)) if sign.as_char() == ':');
    is_colon(at) && is_colon(at + 1)
}

/// Whether a single dot stands before, not the two of a range.
fn is_field(trees: &[TokenTree], at: usize) -> bool {
    let is_dot = |back: usize| {
        let before = at.checked_sub(back).and_then(|at| trees.get(at));
        matches!(before, Some(TokenTree::Punct(sign)) if sign.as_char() == '.')
    };
    is_dot(1) && !is_dot(2)
}

/// Nodes of which nothing is read when they are only there for tests.
macro_rules! unless_for_tests {
    ($($visit:ident: $node:ident),* $(,)?) => {
        $(fn $visit(&mut self, node: &'ast syn::$node) {
            if !is_for_tests_only(&node.attrs) {
                visit::$visit(self, node);
            }
        })*
    };
}

impl<'ast> Visit<'ast> for Reader<'_> {
    unless_for_tests! {
        visit_arm: Arm,
        visit_field: Field,
        visit_field_pat: FieldPat,
        visit_field_value: FieldValue,
        visit_foreign_item_fn: ForeignItemFn,
        visit_impl_item_const: ImplItemConst,
        visit_impl_item_fn: ImplItemFn,
        visit_impl_item_macro: ImplItemMacro,
        visit_impl_item_type: ImplItemType,
        visit_local: Local,
        visit_pat_type: PatType,
        visit_stmt_macro: StmtMacro,
        visit_trait_item_const: TraitItemConst,
        visit_trait_item_fn: TraitItemFn,
        visit_trait_item_macro: TraitItemMacro,
        visit_trait_item_type: TraitItemType,
        visit_variant: Variant,
    }

    fn visit_item(&mut self, item: &'ast Item) {
        if !is_for_tests_only(of_item(item)) {
            assert!(!matches!(item, Item::Mod(_)), "a module within a function is not read");
            visit::visit_item(self, item);
        }
    }

    fn visit_expr(&mut self, expression: &'ast Expr) {
        if !is_for_tests_only(of_expression(expression)) {
            visit::visit_expr(self, expression);
        }
    }

    fn visit_block(&mut self, block: &'ast syn::Block) {
        let items = block.stmts.iter().filter_map(|statement| match statement {
            Stmt::Item(item) => Some(item),
            _ => None,
        });
        self.blocks.push(Scope::of_items(items));
        visit::visit_block(self, block);
        self.blocks.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.record_imports(&imports_of(item));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            let words: Vec<Ident> =
                path.segments.iter().map(|segment| segment.ident.clone()).collect();
            self.record(&words, words.len() > 1);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.scan(call.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        let path = attribute.path();
        if path.is_ident("doc") || path.is_ident("cfg") || !applies(attribute) {
            return;
        }
        self.visit_path(path);
        if let syn::Meta::List(list) = &attribute.meta {
            self.scan(list.tokens.clone());
            self.scan_strings(list.tokens.clone());
        }
    }
}
