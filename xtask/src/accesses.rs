//! Finds the atomic accesses of a source file that are not Relaxed, and the `// ORDERING [tag]` comment of each.
//!
//! An access is found by its ordering: a path such as `Acquire` or `Ordering::Acquire` where an expression stands, in
//! a call or bound by a `let` for one further down, or a call of `fence`. Code under `#[cfg(test)]` is left out.

use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};

use proc_macro2::{TokenStream, TokenTree};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Block, Expr, Pat, Token};

/// An ordering that is not Relaxed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// `Acquire`.
    Acquire,
    /// `Release`.
    Release,
    /// `AcqRel`.
    AcqRel,
    /// `SeqCst`.
    SeqCst,
}

impl Order {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "Acquire" => Self::Acquire,
            "Release" => Self::Release,
            "AcqRel" => Self::AcqRel,
            "SeqCst" => Self::SeqCst,
            _ => return None,
        })
    }
}

/// One ordering of one atomic access, or one fence.
#[derive(Clone, Debug)]
pub struct Access {
    /// Line, from 1.
    pub line: usize,
    /// Where the ordering stands in the text; of a fence, the whole call.
    pub bytes: Range<usize>,
    /// The function it is in, with the type: `Writer::claim`. Empty outside of functions.
    pub function: String,
    /// Which access of the function: `slot.spare.store`, `cell.compare_exchange success`, `fence(Acquire)`.
    pub name: String,
    /// The ordering.
    pub order: Order,
    /// Whether it is a fence.
    pub is_fence: bool,
    /// The tag of the nearest `ORDERING` comment above it in its function.
    pub tag: Option<String>,
    body: RangeInclusive<usize>,
}

/// An `// ORDERING [tag]` comment; the tag is `None` if the comment has none.
#[derive(Debug)]
pub struct Note {
    /// Line, from 1.
    pub line: usize,
    /// What stands in the brackets.
    pub tag: Option<String>,
    /// Whether an access belongs to it.
    pub used: bool,
}

/// What a source file holds.
#[derive(Debug)]
pub struct Source {
    /// Its accesses, in the order of the text.
    pub accesses: Vec<Access>,
    /// Its `ORDERING` comments, in the order of the text.
    pub notes: Vec<Note>,
}

/// Reads a source file.
pub fn find(text: &str) -> syn::Result<Source> {
    let file = syn::parse_file(text)?;
    let mut finder = Finder { text, ..Finder::default() };
    finder.visit_file(&file);
    if let Some(error) = finder.error {
        return Err(error);
    }
    let mut accesses = finder.found;
    number(&mut accesses);
    let mut notes = notes(text);
    for access in &mut accesses {
        let above = |note: &&mut Note| note.line < access.line && access.body.contains(&note.line);
        if let Some(note) = notes.iter_mut().rfind(above) {
            note.used = true;
            access.tag.clone_from(&note.tag);
        }
    }
    Ok(Source { accesses, notes })
}

fn notes(text: &str) -> Vec<Note> {
    let note = |(index, line): (usize, &str)| {
        let rest = line.trim_start().strip_prefix("// ORDERING")?;
        let tag = rest.strip_prefix(" [").and_then(|rest| rest.split_once(']')).map(|(tag, _)| tag.to_owned());
        Some(Note { line: index + 1, tag, used: false })
    };
    text.lines().enumerate().filter_map(note).collect()
}

/// Tells accesses of one function apart that have the same name: `#1`, `#2`.
fn number(accesses: &mut [Access]) {
    let key = |access: &Access| (access.function.clone(), access.name.clone());
    let mut totals = HashMap::<_, usize>::new();
    for access in accesses.iter() {
        *totals.entry(key(access)).or_default() += 1;
    }
    let mut seen = HashMap::<_, usize>::new();
    for access in accesses {
        let key = key(access);
        if totals[&key] > 1 {
            let count = seen.entry(key).or_default();
            *count += 1;
            access.name = format!("{} #{count}", access.name);
        }
    }
}

#[derive(Default)]
struct Finder<'t> {
    text: &'t str,
    found: Vec<Access>,
    /// The first thing that could not be looked into.
    error: Option<syn::Error>,
    /// Types and traits around the place.
    types: Vec<String>,
    /// Functions around the place, and the lines of their bodies.
    functions: Vec<(String, RangeInclusive<usize>)>,
    /// Calls around the place.
    calls: Vec<String>,
    /// Orderings that a `let` of this function gave a name.
    bound: Vec<(String, usize)>,
}

impl<'t> Finder<'t> {
    /// The text of a piece of syntax, on one line.
    fn text(&self, syntax: &impl Spanned) -> String {
        self.text[syntax.span().byte_range()].split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn refuse(&mut self, syntax: &impl Spanned, why: &str) {
        self.error.get_or_insert_with(|| syn::Error::new(syntax.span(), why));
    }

    fn found(&mut self, syntax: &impl Spanned, name: String, order: Order, is_fence: bool) {
        let (function, body) = self.functions.last().cloned().unwrap_or((String::new(), 0..=0));
        let span = syntax.span();
        let (line, bytes) = (span.start().line, span.byte_range());
        self.found.push(Access { line, bytes, function, name, order, is_fence, tag: None, body });
    }

    fn in_function(
        &mut self,
        name: &syn::Ident,
        attributes: &[Attribute],
        body: &Block,
        visit: impl FnOnce(&mut Self),
    ) {
        if is_test(attributes) {
            return;
        }
        let name = self.types.last().map_or_else(|| name.to_string(), |of| format!("{of}::{name}"));
        let span = body.span();
        let calls = std::mem::take(&mut self.calls);
        let bound = std::mem::take(&mut self.bound);
        self.functions.push((name, span.start().line..=span.end().line));
        visit(self);
        self.functions.pop();
        (self.calls, self.bound) = (calls, bound);
    }

    fn in_type(&mut self, name: String, attributes: &[Attribute], visit: impl FnOnce(&mut Self)) {
        if !is_test(attributes) {
            self.types.push(name);
            visit(self);
            self.types.pop();
        }
    }

    /// Visits the argument of a call; an ordering in it, or bound to a name that it is, has that call's name.
    fn argument(&mut self, call: String, argument: &Expr) {
        let name = self.text(argument);
        if let Some(&(_, index)) = self.bound.iter().rfind(|(bound, _)| *bound == name) {
            self.found[index].name.clone_from(&call);
        }
        self.calls.push(call);
        self.visit_expr(argument);
        self.calls.pop();
    }

    /// Visits what a `let` binds to `pattern`, and notes the name if it is an ordering.
    fn binding(&mut self, pattern: &Pat, value: &Expr) {
        match (pattern, value) {
            (Pat::Tuple(patterns), Expr::Tuple(values)) if patterns.elems.len() == values.elems.len() => {
                for (pattern, value) in patterns.elems.iter().zip(&values.elems) {
                    self.binding(pattern, value);
                }
            }
            (Pat::Ident(pattern), Expr::Path(path)) if order_of(path).is_some() => {
                let name = pattern.ident.to_string();
                self.calls.push(format!("let {name}"));
                self.visit_expr(value);
                self.calls.pop();
                self.bound.push((name, self.found.len() - 1));
            }
            _ => self.visit_expr(value),
        }
    }
}

/// An access's receiver, without what looks into an `Option` or `Result`.
fn place(receiver: &Expr) -> &Expr {
    match receiver {
        Expr::Try(inner) => place(&inner.expr),
        Expr::MethodCall(call) if call.method == "ok_or" || call.method == "expect" => place(&call.receiver),
        plain => plain,
    }
}

/// The role of an argument, where a call takes two orderings.
fn role(method: &str, argument: usize) -> &'static str {
    match (method, argument) {
        ("compare_exchange" | "compare_exchange_weak", 2) | ("fetch_update", 0) => " success",
        ("compare_exchange" | "compare_exchange_weak", 3) | ("fetch_update", 1) => " failure",
        _ => "",
    }
}

fn order_of(path: &syn::ExprPath) -> Option<Order> {
    Order::from_name(&path.path.segments.last()?.ident.to_string())
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let idents = || attribute.meta.require_list().map(|list| idents(list.tokens.clone())).unwrap_or_default();
        attribute.path().is_ident("test")
            || (attribute.path().is_ident("cfg") && {
                let idents = idents();
                idents.iter().any(|ident| ident == "test") && !idents.iter().any(|ident| ident == "not")
            })
    })
}

fn idents(tokens: TokenStream) -> Vec<String> {
    let of = |token| match token {
        TokenTree::Ident(ident) => vec![ident.to_string()],
        TokenTree::Group(group) => idents(group.stream()),
        _ => Vec::new(),
    };
    tokens.into_iter().flat_map(of).collect()
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let name = match &*item.self_ty {
            syn::Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
            _ => None,
        };
        let name = name.unwrap_or_else(|| self.text(&item.self_ty));
        self.in_type(name, &item.attrs, |finder| visit::visit_item_impl(finder, item));
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.in_type(item.ident.to_string(), &item.attrs, |finder| visit::visit_item_trait(finder, item));
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        let visit = |finder: &mut Self| visit::visit_item_fn(finder, item);
        self.in_function(&item.sig.ident, &item.attrs, &item.block, visit);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        let visit = |finder: &mut Self| visit::visit_impl_item_fn(finder, item);
        self.in_function(&item.sig.ident, &item.attrs, &item.block, visit);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(body) = &item.default {
            let visit = |finder: &mut Self| visit::visit_trait_item_fn(finder, item);
            self.in_function(&item.sig.ident, &item.attrs, body, visit);
        }
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        let Some(init) = &local.init else { return };
        self.binding(&local.pat, &init.expr);
        if let Some((_, diverge)) = &init.diverge {
            self.visit_expr(diverge);
        }
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        self.visit_expr(&call.receiver);
        let (receiver, method) = (self.text(place(&call.receiver)), call.method.to_string());
        for (index, argument) in call.args.iter().enumerate() {
            self.argument(format!("{receiver}.{method}{}", role(&method, index)), argument);
        }
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        self.visit_expr(&call.func);
        let is_fence = match &*call.func {
            Expr::Path(path) => path.path.segments.last().is_some_and(|last| last.ident == "fence"),
            _ => false,
        };
        let order = match call.args.first() {
            Some(Expr::Path(path)) => order_of(path),
            _ => None,
        };
        if let (true, Some(order)) = (is_fence, order) {
            return self.found(call, format!("fence({order:?})"), order, true);
        }
        if is_fence && call.args.iter().any(|argument| self.bound.iter().any(|(name, _)| *name == self.text(argument)))
        {
            self.refuse(call, "a fence's ordering must stand in the call");
        }
        let function = self.text(&call.func);
        for argument in &call.args {
            self.argument(function.clone(), argument);
        }
    }

    fn visit_expr_path(&mut self, path: &'ast syn::ExprPath) {
        if let Some(order) = order_of(path) {
            let name = self.calls.last().cloned().unwrap_or_else(|| self.text(path));
            self.found(path, name, order, false);
        }
    }

    /// A pattern names an ordering without using it.
    fn visit_pat(&mut self, _: &'ast Pat) {}

    /// A macro is looked into if it takes expressions; an ordering in any other must not go unnoticed.
    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        if !idents(item.tokens.clone()).iter().any(|ident| Order::from_name(ident).is_some()) {
            return;
        }
        match Punctuated::<Expr, Token![,]>::parse_terminated.parse2(item.tokens.clone()) {
            Ok(arguments) => arguments.iter().for_each(|argument| self.argument_of_macro(argument)),
            Err(_) => self.refuse(item, "an ordering stands in a macro that cannot be looked into"),
        }
    }
}

impl Finder<'_> {
    fn argument_of_macro(&mut self, argument: &Expr) {
        // Its own visitor: the expression lives no longer than this call, and the lifetime of `Visit` is the caller's.
        let mut inner = Finder {
            text: self.text,
            functions: self.functions.clone(),
            types: self.types.clone(),
            found: std::mem::take(&mut self.found),
            bound: self.bound.clone(),
            ..Finder::default()
        };
        inner.visit_expr(argument);
        self.found = inner.found;
        self.error = self.error.take().or(inner.error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNIPPET: &str = r#"
use crate::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
impl<const W: usize> Thing<W> {
    fn take(&self) {
        // ORDERING [one]: pairs with nothing.
        self.a.store(0, Release);
        // ORDERING [two]: é, so that bytes are not characters.
        let (success, failure) = (AcqRel, Ordering::Acquire);
        self.cells[0].compare_exchange(1, 2, success, failure);
        fence(Acquire);
        self.b.load(Relaxed);
    }
}
fn twice(a: &A) -> u8 {
    assert_eq!(a.x.load(Acquire), 2, "{}", 1);
    a.get(3).ok_or(Fault::Of { it })?.store(1, Release);
    match order { Acquire => 1, _ => a.x.load(Acquire) }
}
#[cfg(test)]
mod tests { fn f() { a.load(Acquire); } }
"#;

    #[test]
    fn finds_each_access_with_its_name_and_tag() {
        let source = find(SNIPPET).unwrap();
        let found: Vec<_> = source
            .accesses
            .iter()
            .map(|a| (a.function.as_str(), a.name.as_str(), &SNIPPET[a.bytes.clone()], a.tag.as_deref()))
            .collect();
        assert_eq!(
            found,
            [
                ("Thing::take", "self.a.store", "Release", Some("one")),
                ("Thing::take", "self.cells[0].compare_exchange success", "AcqRel", Some("two")),
                ("Thing::take", "self.cells[0].compare_exchange failure", "Ordering::Acquire", Some("two")),
                ("Thing::take", "fence(Acquire)", "fence(Acquire)", Some("two")),
                ("twice", "a.x.load #1", "Acquire", None),
                ("twice", "a.get(3).store", "Release", None),
                ("twice", "a.x.load #2", "Acquire", None),
            ]
        );
        assert_eq!(source.accesses[0].line, 6);
    }

    #[test]
    fn refuses_what_it_cannot_look_into() {
        let in_macro = find("fn f() { odd!(a => Acquire ; b) }").unwrap_err();
        assert!(in_macro.to_string().contains("macro"), "{in_macro}");
        let bound = find("fn f() { let order = Acquire; fence(order); }").unwrap_err();
        assert!(bound.to_string().contains("fence"), "{bound}");
    }

    #[test]
    fn a_comment_counts_only_above_and_in_the_same_function() {
        let source = find("fn f() {\n// ORDERING [a]: x\n}\nfn g() { a.load(Acquire);\n// ORDERING [b]\n}").unwrap();
        assert_eq!(source.accesses[0].tag, None);
        assert!(source.notes.iter().all(|note| !note.used));
    }
}
