//! What a name means in a module: which module defines what it stands for,
//! through whatever imports and re-exports.

use std::collections::{BTreeMap, BTreeSet};

use syn::{Ident, Item, UseTree, Visibility};

use super::conditions::{is_for_tests_only, of_item};
use super::modules::{Code, Crate, Id};

/// What a path leads to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Module(Id),
    /// Something else than a module, by the module that defines it.
    Item(Id),
}

/// One path out of a `use` item, without braces.
pub struct Import {
    pub path: Vec<Ident>,
    /// What it is called here; none for a glob.
    pub name: Option<String>,
}

/// The names of a module, or of a block of code.
#[derive(Default)]
pub struct Scope {
    named: BTreeMap<String, Vec<Entry>>,
    /// The paths of all that is imported by `*`, and whether only from here.
    globs: Vec<(Vec<String>, bool)>,
}

struct Entry {
    meaning: Meaning,
    /// Not seen by a glob elsewhere.
    is_private: bool,
}

enum Meaning {
    Module(Id),
    Item,
    Import(Vec<String>),
}

impl Scope {
    pub fn of_items<'a>(items: impl IntoIterator<Item = &'a Item>) -> Self {
        let mut scope = Self::default();
        for item in items {
            if !is_for_tests_only(of_item(item)) {
                scope.add(item);
            }
        }
        scope
    }

    fn add(&mut self, item: &Item) {
        let (name, visibility) = match item {
            Item::Const(inner) => (&inner.ident, &inner.vis),
            Item::Enum(inner) => (&inner.ident, &inner.vis),
            Item::Fn(inner) => (&inner.sig.ident, &inner.vis),
            Item::Static(inner) => (&inner.ident, &inner.vis),
            Item::Struct(inner) => (&inner.ident, &inner.vis),
            Item::Trait(inner) => (&inner.ident, &inner.vis),
            Item::TraitAlias(inner) => (&inner.ident, &inner.vis),
            Item::Type(inner) => (&inner.ident, &inner.vis),
            Item::Union(inner) => (&inner.ident, &inner.vis),
            Item::Macro(inner) => match &inner.ident {
                Some(name) => (name, &Visibility::Inherited),
                None => return,
            },
            Item::Use(inner) => {
                let is_private = is_private(&inner.vis);
                for Import { path, name } in imports_of(inner) {
                    let path: Vec<String> = path.iter().map(Ident::to_string).collect();
                    match name {
                        Some(name) => self.insert(name, Meaning::Import(path), is_private),
                        None => self.globs.push((path, is_private)),
                    }
                }
                return;
            }
            _ => return,
        };
        self.insert(name.to_string(), Meaning::Item, is_private(visibility));
    }

    fn imports(&self, name: &str) -> bool {
        let mut entries = self.named.get(name).into_iter().flatten();
        entries.any(|entry| matches!(entry.meaning, Meaning::Import(_)))
    }

    fn insert(&mut self, name: String, meaning: Meaning, is_private: bool) {
        self.named.entry(name).or_default().push(Entry { meaning, is_private });
    }
}

fn is_private(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Inherited)
}

/// A `use` item taken apart; nothing of one that names other crates by `::`.
pub fn imports_of(item: &syn::ItemUse) -> Vec<Import> {
    let mut imports = Vec::new();
    if item.leading_colon.is_none() {
        take_apart(&item.tree, &mut Vec::new(), &mut imports);
    }
    imports
}

pub fn take_apart(tree: &UseTree, before: &mut Vec<Ident>, imports: &mut Vec<Import>) {
    let (last, name) = match tree {
        UseTree::Path(inner) => {
            before.push(inner.ident.clone());
            take_apart(&inner.tree, before, imports);
            before.pop();
            return;
        }
        UseTree::Group(inner) => {
            for tree in &inner.items {
                take_apart(tree, before, imports);
            }
            return;
        }
        UseTree::Glob(_) => {
            imports.push(Import { path: before.clone(), name: None });
            return;
        }
        UseTree::Name(inner) if inner.ident == "self" => {
            (&inner.ident, before.last().unwrap_or(&inner.ident))
        }
        UseTree::Name(inner) => (&inner.ident, &inner.ident),
        UseTree::Rename(inner) => (&inner.ident, &inner.rename),
    };
    let name = Some(name.to_string());
    let path = before.iter().chain([last]).cloned().collect();
    imports.push(Import { path, name });
}

/// The names of all modules of a crate.
pub struct Names<'a> {
    all: &'a Crate,
    scopes: Vec<Scope>,
}

/// The names that are being looked up, so that imports in a circle end.
type Asked = Vec<(Id, String)>;

impl<'a> Names<'a> {
    pub fn of(all: &'a Crate, code: &Code) -> Self {
        let scopes = all.modules.iter().zip(code).map(|(module, items)| {
            let mut scope = Scope::of_items(items);
            for (name, child) in &module.children {
                // Whom a module is shown to is left to the compiler.
                scope.insert(name.clone(), Meaning::Module(*child), false);
            }
            scope
        });
        Self { all, scopes: scopes.collect() }
    }

    /// What a path leads to, as it is written in a module, within blocks of code
    /// with names of their own. Nothing of what is not in the crate.
    pub fn resolve(&self, at: Id, blocks: &[Scope], path: &[String]) -> BTreeSet<Target> {
        self.follow(at, blocks, path, &mut Vec::new())
    }

    /// Whether a `use` here, not a glob, brings a name in.
    pub fn is_imported(&self, at: Id, blocks: &[Scope], name: &str) -> bool {
        blocks.iter().chain([&self.scopes[at]]).any(|scope| scope.imports(name))
    }

    fn follow(
        &self,
        at: Id,
        blocks: &[Scope],
        path: &[String],
        asked: &mut Asked,
    ) -> BTreeSet<Target> {
        let Some((first, rest)) = path.split_first() else { return BTreeSet::new() };
        let mut reached = match first.as_str() {
            "crate" => BTreeSet::from([Target::Module(0)]),
            "self" => BTreeSet::from([Target::Module(at)]),
            "super" => self.above(at),
            name => self.in_blocks(at, blocks, name, asked),
        };
        for name in rest {
            let steps = reached.iter().map(|target| match (*target, name.as_str()) {
                (Target::Item(id), _) => BTreeSet::from([Target::Item(id)]),
                (Target::Module(id), "self") => BTreeSet::from([Target::Module(id)]),
                (Target::Module(id), "super") => self.above(id),
                // What a macro defines is not seen, and is the module's own.
                (Target::Module(id), name) => self
                    .lookup(id, name, None, asked)
                    .unwrap_or_else(|| BTreeSet::from([Target::Item(id)])),
            });
            reached = steps.flatten().collect();
        }
        reached
    }

    fn above(&self, id: Id) -> BTreeSet<Target> {
        self.all.modules[id].parent.map(Target::Module).into_iter().collect()
    }

    fn in_blocks(
        &self,
        at: Id,
        blocks: &[Scope],
        name: &str,
        asked: &mut Asked,
    ) -> BTreeSet<Target> {
        let Some((block, outer)) = blocks.split_last() else {
            return self.lookup(at, name, None, asked).unwrap_or_default();
        };
        let Some(entries) = block.named.get(name) else {
            let mut found = self.in_blocks(at, outer, name, asked);
            for (path, _) in &block.globs {
                found.extend(self.by_glob(at, outer, path, name, asked).unwrap_or_default());
            }
            return found;
        };
        let meanings = entries.iter().map(|entry| match &entry.meaning {
            Meaning::Import(path) => self.follow(at, outer, path, asked),
            Meaning::Module(id) => BTreeSet::from([Target::Module(*id)]),
            Meaning::Item => BTreeSet::from([Target::Item(at)]),
        });
        meanings.flatten().collect()
    }

    /// What a module means by a name; none if it has no such name. `by` is the
    /// module that has it by a glob only.
    fn lookup(
        &self,
        at: Id,
        name: &str,
        by: Option<Id>,
        asked: &mut Asked,
    ) -> Option<BTreeSet<Target>> {
        let key = (at, name.to_owned());
        let is_asked_already = asked.contains(&key);
        let is_inside = by.is_none_or(|by| self.all.line_of(by).contains(&at));
        asked.push(key);
        let scope = &self.scopes[at];
        let mut found = None::<BTreeSet<Target>>;
        for entry in scope.named.get(name).into_iter().flatten() {
            if entry.is_private && !is_inside {
                continue;
            }
            let meaning = match &entry.meaning {
                Meaning::Module(id) => BTreeSet::from([Target::Module(*id)]),
                Meaning::Item => BTreeSet::from([Target::Item(at)]),
                Meaning::Import(_) if is_asked_already => continue,
                Meaning::Import(path) => self.follow(at, &[], path, asked),
            };
            found.get_or_insert_default().extend(meaning);
        }
        if found.is_none() && !is_asked_already {
            for (path, is_private) in &scope.globs {
                if is_inside || !is_private {
                    let more = self.by_glob(at, &[], path, name, asked);
                    found = found.into_iter().chain(more).reduce(|one, other| &one | &other);
                }
            }
        }
        asked.pop();
        found
    }

    fn by_glob(
        &self,
        at: Id,
        blocks: &[Scope],
        path: &[String],
        name: &str,
        asked: &mut Asked,
    ) -> Option<BTreeSet<Target>> {
        let modules = self.follow(at, blocks, path, asked).into_iter();
        let found = modules.filter_map(|target| match target {
            Target::Module(id) => self.lookup(id, name, Some(at), asked),
            Target::Item(_) => None,
        });
        found.reduce(|one, other| &one | &other)
    }
}
