//! The modules of a crate, read from its files as the compiler would, without
//! those that only tests have.

use std::collections::BTreeMap;

use syn::Item;

use super::conditions::{is_for_tests_only, of_item};

/// A module's number; the crate itself is 0.
pub type Id = usize;

pub struct Module {
    /// The names from the crate to here; empty for the crate itself.
    pub path: Vec<String>,
    /// The file that it is written in, below `src`.
    pub file: String,
    pub parent: Option<Id>,
    pub children: BTreeMap<String, Id>,
}

/// What each module declares besides modules, by its number. Syntax cannot go
/// from thread to thread as the modules can.
pub type Code = Vec<Vec<Item>>;

pub struct Crate {
    pub modules: Vec<Module>,
}

impl Crate {
    /// Follows the declarations from `lib.rs`. `text_of` gives a file's text.
    ///
    /// # Panics
    ///
    /// If a file is missing or is not Rust, or is named by `#[path]`.
    pub fn read(text_of: &dyn Fn(&str) -> Option<String>) -> (Self, Code) {
        let (mut all, mut code) = (Self { modules: Vec::new() }, Code::new());
        let place = Module {
            path: Vec::new(),
            file: "lib.rs".to_owned(),
            parent: None,
            children: BTreeMap::new(),
        };
        let items = items_of(&place.file, text_of);
        all.add(place, items, &mut code, text_of);
        (all, code)
    }

    fn add(
        &mut self,
        module: Module,
        items: Vec<Item>,
        code: &mut Code,
        text_of: &dyn Fn(&str) -> Option<String>,
    ) -> Id {
        let id = self.modules.len();
        self.modules.push(module);
        code.push(Vec::new());
        for item in items.into_iter().filter(|item| !is_for_tests_only(of_item(item))) {
            let Item::Mod(declared) = item else {
                code[id].push(item);
                continue;
            };
            let above = &self.modules[id];
            let by_path = declared.attrs.iter().any(|attribute| attribute.path().is_ident("path"));
            assert!(!by_path, "{}: a file named by #[path]", above.file);
            let name = declared.ident.to_string();
            let path = [above.path.as_slice(), std::slice::from_ref(&name)].concat();
            let (file, items) = match declared.content {
                Some((_, items)) => (above.file.clone(), items),
                None => {
                    let file = format!("{}.rs", path.join("/"));
                    let items = items_of(&file, text_of);
                    (file, items)
                }
            };
            let child = Module { path, file, parent: Some(id), children: BTreeMap::new() };
            let child = self.add(child, items, code, text_of);
            self.modules[id].children.insert(name, child);
        }
        id
    }

    /// The modules that hold this one, from the crate down to itself.
    pub fn line_of(&self, id: Id) -> Vec<Id> {
        let mut line = vec![id];
        while let Some(parent) = line.last().and_then(|last| self.modules[*last].parent) {
            line.push(parent);
        }
        line.reverse();
        line
    }

    pub fn name_of(&self, id: Id) -> &str {
        self.modules[id].path.last().map_or("crate", String::as_str)
    }
}

fn items_of(file: &str, text_of: &dyn Fn(&str) -> Option<String>) -> Vec<Item> {
    let text = text_of(file).unwrap_or_else(|| panic!("{file} is declared and not there"));
    let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
    if is_for_tests_only(&parsed.attrs) { Vec::new() } else { parsed.items }
}
