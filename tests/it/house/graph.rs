//! The graph between the modules of one parent, each taken together with all
//! below it, and its cycles.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use super::modules::{Crate, Id};
use super::references::Reference;

/// Where an edge is written: a file below `src`, and a line.
type Place = (String, usize);

/// What each child of a parent imports of its siblings.
type Level = BTreeMap<(Id, Id), BTreeSet<Place>>;

pub struct Graph {
    levels: BTreeMap<Id, Level>,
}

impl Graph {
    /// A reference between a module and what holds it is no edge.
    pub fn of(all: &Crate, references: &BTreeSet<Reference>) -> Self {
        let mut levels = BTreeMap::<Id, Level>::new();
        for reference in references {
            let (from, to) = (all.line_of(reference.from), all.line_of(reference.to));
            let shared = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
            if let (Some(child), Some(sibling)) = (from.get(shared), to.get(shared)) {
                let place = (all.modules[reference.from].file.clone(), reference.line);
                let level = levels.entry(from[shared - 1]).or_default();
                level.entry((*child, *sibling)).or_default().insert(place);
            }
        }
        Self { levels }
    }

    /// The siblings that a module, with all below it, imports.
    pub fn imports_of(&self, all: &Crate, module: Id) -> BTreeSet<Id> {
        let level = all.modules[module].parent.and_then(|parent| self.levels.get(&parent));
        let edges = level.into_iter().flat_map(BTreeMap::keys);
        edges.filter(|(from, _)| *from == module).map(|(_, to)| *to).collect()
    }

    /// Where a module imports a sibling.
    pub fn places(&self, all: &Crate, from: Id, to: Id) -> Vec<String> {
        let level = all.modules[from].parent.and_then(|parent| self.levels.get(&parent));
        let places = level.and_then(|level| level.get(&(from, to)));
        places.into_iter().flatten().map(|(file, line)| format!("{file}:{line}")).collect()
    }

    /// Each knot of modules that reach one another, with every edge within it.
    pub fn cycles(&self, all: &Crate) -> Vec<String> {
        let knots = self.levels.iter().flat_map(|(parent, level)| {
            let knots = knots_of(level);
            knots.into_iter().map(|knot| described(all, *parent, level, &knot))
        });
        knots.collect()
    }
}

/// The shortest way along edges, both ends included, of at least one edge.
fn shortest_way(level: &Level, from: Id, to: Id) -> Option<Vec<Id>> {
    let mut ways = VecDeque::from([vec![from]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for (one, next) in level.keys() {
            if way.last() == Some(one) && seen.insert(*next) {
                let longer = [way.as_slice(), &[*next]].concat();
                if *next == to {
                    return Some(longer);
                }
                ways.push_back(longer);
            }
        }
    }
    None
}

/// The strongly connected components of more than one module.
fn knots_of(level: &Level) -> Vec<BTreeSet<Id>> {
    let mut knots = Vec::<BTreeSet<Id>>::new();
    for (from, to) in level.keys() {
        if shortest_way(level, *to, *from).is_some() {
            match knots.iter_mut().find(|knot| knot.contains(from) || knot.contains(to)) {
                Some(knot) => knot.extend([from, to]),
                None => knots.push(BTreeSet::from([*from, *to])),
            }
        }
    }
    // Two parts of one knot, begun at edges that do not touch, share a module now.
    let mut joined = Vec::<BTreeSet<Id>>::new();
    for mut knot in knots {
        while let Some(at) = joined.iter().position(|other| !other.is_disjoint(&knot)) {
            knot.extend(joined.swap_remove(at));
        }
        joined.push(knot);
    }
    joined
}

fn described(all: &Crate, parent: Id, level: &Level, knot: &BTreeSet<Id>) -> String {
    let names: Vec<&str> = knot.iter().map(|id| all.name_of(*id)).collect();
    let inside = [vec!["crate".to_owned()], all.modules[parent].path.clone()].concat().join("::");
    let mut text = format!("in {inside}, a cycle of {}: {}\n", names.len(), names.join(", "));
    let shortest = knot.iter().filter_map(|id| shortest_way(level, *id, *id)).min_by_key(Vec::len);
    let shortest: Vec<&str> = shortest.iter().flatten().map(|id| all.name_of(*id)).collect();
    let _ = writeln!(text, "  shortest: {}", shortest.join(" -> "));
    for ((from, to), places) in level {
        if knot.contains(from) && knot.contains(to) {
            for (file, line) in places {
                let _ = writeln!(text, "  {file}:{line} -> {}", all.name_of(*to));
            }
        }
    }
    text
}
