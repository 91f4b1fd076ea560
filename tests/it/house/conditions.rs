//! What an attribute `#[cfg(..)]` takes out of the program: everything that is
//! only there in a build of tests.

use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, Item, Meta, Token};

/// Whether what bears these attributes is built into tests only.
pub fn is_for_tests_only(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let path = attribute.path();
        if path.is_ident("cfg") {
            return attribute.parse_args::<Meta>().is_ok_and(|meta| holds(&meta) == Some(false));
        }
        path.segments.last().is_some_and(|last| last.ident == "test")
    })
}

/// Whether `#[cfg_attr(..)]` adds something outside of tests, or is no such attribute.
pub fn applies(attribute: &Attribute) -> bool {
    if !attribute.path().is_ident("cfg_attr") {
        return true;
    }
    let parts = attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
    parts.is_ok_and(|parts| parts.first().is_none_or(|condition| holds(condition) != Some(false)))
}

/// A condition's value in a build that is not for tests; none where the feature
/// or the platform decides.
fn holds(condition: &Meta) -> Option<bool> {
    let list = match condition {
        Meta::Path(path) if path.is_ident("test") => return Some(false),
        Meta::List(list) => list,
        Meta::Path(_) | Meta::NameValue(_) => return None,
    };
    let parts = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).ok()?;
    let mut values = parts.iter().map(holds);
    if list.path.is_ident("not") {
        return values.next().flatten().map(|value| !value);
    }
    // The value that decides for the whole as soon as one part has it.
    let decisive = list.path.is_ident("any");
    let values: Vec<_> = values.collect();
    if values.contains(&Some(decisive)) {
        Some(decisive)
    } else if values.contains(&None) {
        None
    } else {
        Some(!decisive)
    }
}

/// The attributes of one of the variants of an enum of syntax.
macro_rules! attributes_of {
    ($kind:ident, $node:expr; $($variant:ident)*) => {
        match $node {
            $($kind::$variant(inner) => &inner.attrs,)*
            _ => &[],
        }
    };
}

pub fn of_item(item: &Item) -> &[Attribute] {
    attributes_of!(Item, item; Const Enum ExternCrate Fn ForeignMod Impl Macro Mod Static Struct
        Trait TraitAlias Type Union Use)
}

/// An attribute before `a = b`, `a + b` or `a as b` is kept with `a`.
pub fn of_expression(expression: &Expr) -> &[Attribute] {
    match expression {
        Expr::Assign(inner) if inner.attrs.is_empty() => of_expression(&inner.left),
        Expr::Binary(inner) if inner.attrs.is_empty() => of_expression(&inner.left),
        Expr::Cast(inner) if inner.attrs.is_empty() => of_expression(&inner.expr),
        _ => attributes_of!(Expr, expression; Array Assign Async Await Binary Block Break Call Cast
            Closure Const Continue Field ForLoop Group If Index Infer Let Lit Loop Macro Match
            MethodCall Paren Path Range RawAddr Reference Repeat Return Struct Try TryBlock Tuple
            Unary Unsafe While Yield),
    }
}
