//! Compares the public interface of the library with `tests/public_api.rs.txt`, so that a change to it is deliberate.
//!
//! The list is made from the sources: the declarations that `src/lib.rs` makes public, without bodies and private
//! parts. An item made by a macro is listed by name only, except for structs of settings, whose lines are read. The
//! usual tool for this needs the JSON of a nightly compiler, but the tests run on stable.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use syn::parse::{Parse, ParseStream};
use syn::{
    Attribute, Block, Expr, Fields, Ident, ImplItem, Item, ItemImpl, ItemMod, ItemStruct, ItemUse, LitStr, Meta, Token,
    TraitItem, Type, UseTree, Visibility, braced, parse_quote,
};

/// Every module of the library, by path.
struct Library {
    modules: BTreeMap<Vec<String>, Vec<Item>>,
    impls: Vec<ItemImpl>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

impl Library {
    fn read() -> Self {
        let mut library = Self { modules: BTreeMap::new(), impls: Vec::new() };
        library.read_module(vec![], &root().join("src/lib.rs"), &root().join("src"));
        let items = library.modules.values().flatten();
        let impls = items.filter_map(|item| match item {
            Item::Impl(found) => Some(found.clone()),
            _ => None,
        });
        library.impls = impls.collect();
        library
    }

    fn read_module(&mut self, path: Vec<String>, file: &Path, directory: &Path) {
        let mut items = syn::parse_file(&fs::read_to_string(file).unwrap()).unwrap().items;
        for at in 0..items.len() {
            if let Item::Macro(found) = &items[at]
                && found.mac.path.is_ident("section")
            {
                let Section(made) = syn::parse2(found.mac.tokens.clone()).unwrap();
                let name = &made.ident;
                items.push(parse_quote!(impl Default for #name {}));
                items[at] = Item::Struct(made);
            }
        }
        for item in &items {
            let Item::Mod(ItemMod { ident, content: None, attrs, .. }) = item else { continue };
            if is_for_tests(attrs) {
                continue;
            }
            let name = ident.to_string();
            let (flat, inner) = (directory.join(format!("{name}.rs")), directory.join(&name));
            let file = if flat.exists() { flat } else { inner.join("mod.rs") };
            self.read_module([path.clone(), vec![name]].concat(), &file, &inner);
        }
        self.modules.insert(path, items);
    }

    /// The public part of a module.
    fn public(&self, path: &[String]) -> Vec<Item> {
        let mut public = Vec::new();
        for item in &self.modules[path] {
            match item {
                Item::Mod(module) if is_public(&module.vis) && !is_for_tests(&module.attrs) => {
                    let (name, attrs) = (&module.ident, kept(&module.attrs));
                    let items = self.public(&[path, &[name.to_string()]].concat());
                    public.push(parse_quote!(#(#attrs)* pub mod #name { #(#items)* }));
                }
                Item::Use(import) if is_public(&import.vis) => {
                    for (from, name) in leaves(import) {
                        let module: Vec<_> = path.iter().chain(&from).cloned().collect();
                        match self.find(&module, &name) {
                            Some(item) => public.extend(self.declaration(&item)),
                            // The item is defined elsewhere in the crate, or a macro makes it.
                            None => public.push(named(&from, &name)),
                        }
                    }
                }
                other => public.extend(self.declaration(other)),
            }
        }
        public.sort_by_key(|item| matches!(item, Item::Mod(_)));
        public
    }

    /// Returns the public item of this name in a module, whether it is declared there or imported by `pub use`.
    fn find(&self, module: &[String], name: &str) -> Option<Item> {
        let items = self.modules.get(module)?;
        let imported = || {
            let imports = items.iter().filter_map(|item| match item {
                Item::Use(import) if is_public(&import.vis) => Some(leaves(import)),
                _ => None,
            });
            let (from, _) = imports.flatten().find(|(_, found)| found == name)?;
            self.find(&[module, &from].concat(), name)
        };
        declared(items, name).or_else(imported)
    }

    /// Returns a public item and its implementations.
    fn declaration(&self, item: &Item) -> Vec<Item> {
        let Some((bare, name)) = bare(item) else { return Vec::new() };
        let mut impls: Vec<Item> = self.impls.iter().filter_map(|found| bare_impl(found, &name)).collect();
        impls.sort_by_key(|found| print(vec![found.clone()]));
        [vec![bare], impls].concat()
    }
}

/// Returns the struct that the lines of a `section!` make.
struct Section(ItemStruct);

impl Parse for Section {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let attributes = input.call(Attribute::parse_outer)?;
        let (_, _, name) = (input.parse::<Token![pub]>()?, input.parse::<Token![struct]>()?, input.parse::<Ident>()?);
        let _ = (input.parse::<Token![in]>()?, input.parse::<LitStr>()?);
        let lines;
        braced!(lines in input);
        let mut made: ItemStruct = parse_quote! {
            #(#attributes)*
            #[derive(Debug, Clone, PartialEq, Eq)]
            pub struct #name {}
        };
        let Fields::Named(fields) = &mut made.fields else { panic!("no struct with fields") };
        while !lines.is_empty() {
            let _ = lines.call(Attribute::parse_outer)?;
            let name = lines.parse::<Ident>()?;
            if name == "sections" {
                let parts;
                braced!(parts in lines);
                while !parts.is_empty() {
                    let _ = parts.call(Attribute::parse_outer)?;
                    let (name, _, part) =
                        (parts.parse::<Ident>()?, parts.parse::<Token![:]>()?, parts.parse::<Type>()?);
                    parts.parse::<Token![;]>()?;
                    fields.named.push(parse_quote!(pub #name: #part));
                }
                continue;
            }
            if lines.parse::<Option<Token![as]>>()?.is_some() {
                lines.parse::<LitStr>()?;
            }
            let (_, value) = (lines.parse::<Token![:]>()?, lines.parse::<Type>()?);
            let _ = (lines.parse::<Token![=]>()?, lines.parse::<Expr>()?);
            if lines.parse::<Option<Token![,]>>()?.is_some() {
                lines.parse::<Expr>()?;
            }
            lines.parse::<Token![;]>()?;
            fields.named.push(parse_quote!(pub #name: #value));
        }
        Ok(Self(made))
    }
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn text(attribute: &Attribute) -> String {
    match &attribute.meta {
        Meta::List(list) => list.tokens.to_string(),
        _ => String::new(),
    }
}

/// Returns whether the item exists only in tests.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| attribute.path().is_ident("cfg") && text(attribute) == "test")
}

/// Returns the attributes that matter to a user.
fn kept(attributes: &[Attribute]) -> Vec<Attribute> {
    let matters = |attribute: &&Attribute| {
        ["derive", "non_exhaustive", "cfg", "must_use"].iter().any(|name| attribute.path().is_ident(name))
    };
    attributes.iter().filter(matters).cloned().collect()
}

/// Returns the names that a `pub use` of this module imports, each with the path of its module.
fn leaves(import: &ItemUse) -> Vec<(Vec<String>, String)> {
    fn walk(tree: &UseTree, way: &[String], found: &mut Vec<(Vec<String>, String)>) {
        match tree {
            UseTree::Path(path) if path.ident == "self" => walk(&path.tree, way, found),
            UseTree::Path(path) => walk(&path.tree, &[way, &[path.ident.to_string()]].concat(), found),
            UseTree::Group(group) => group.items.iter().for_each(|tree| walk(tree, way, found)),
            UseTree::Name(name) => found.push((way.to_vec(), name.ident.to_string())),
            _ => panic!("this test does not support this form of `pub use`, in {way:?}"),
        }
    }
    let mut found = Vec::new();
    walk(&import.tree, &[], &mut found);
    found
}

fn named(from: &[String], name: &str) -> Item {
    syn::parse_str(&format!("pub use {}::{name};", from.join("::"))).unwrap()
}

fn declared(items: &[Item], name: &str) -> Option<Item> {
    items.iter().find(|item| bare(item).is_some_and(|(_, found)| found == name)).cloned()
}

/// Returns the item without documents, bodies and private parts, and its name, if it is public.
fn bare(item: &Item) -> Option<(Item, String)> {
    let empty: Block = parse_quote!({});
    let (item, name, visibility) = match item.clone() {
        Item::Struct(mut item) => {
            item.attrs = kept(&item.attrs);
            item.fields.iter_mut().for_each(|field| field.attrs = kept(&field.attrs));
            match &mut item.fields {
                Fields::Named(fields) => {
                    let all = fields.named.len();
                    let shown = std::mem::take(&mut fields.named).into_iter().filter(|field| is_public(&field.vis));
                    fields.named = shown.collect();
                    // The struct has private fields, so a user can neither construct it nor destructure it.
                    if fields.named.len() < all {
                        fields.named.push(parse_quote!(private: _));
                    }
                }
                Fields::Unnamed(fields) => {
                    for field in fields.unnamed.iter_mut().filter(|field| !is_public(&field.vis)) {
                        field.ty = parse_quote!(_);
                    }
                }
                Fields::Unit => {}
            }
            (Item::Struct(item.clone()), item.ident, item.vis)
        }
        Item::Enum(mut item) => {
            item.attrs = kept(&item.attrs);
            for variant in &mut item.variants {
                variant.attrs = kept(&variant.attrs);
                variant.fields.iter_mut().for_each(|field| field.attrs = kept(&field.attrs));
            }
            (Item::Enum(item.clone()), item.ident, item.vis)
        }
        Item::Trait(mut item) => {
            item.attrs = kept(&item.attrs);
            for inner in &mut item.items {
                if let TraitItem::Fn(function) = inner {
                    function.attrs = kept(&function.attrs);
                    function.default = function.default.is_some().then(|| empty.clone());
                }
            }
            (Item::Trait(item.clone()), item.ident, item.vis)
        }
        Item::Fn(mut item) => {
            item.attrs = kept(&item.attrs);
            *item.block = empty;
            (Item::Fn(item.clone()), item.sig.ident, item.vis)
        }
        Item::Type(mut item) => {
            item.attrs = kept(&item.attrs);
            (Item::Type(item.clone()), item.ident, item.vis)
        }
        Item::Const(mut item) => {
            item.attrs = kept(&item.attrs);
            (Item::Const(item.clone()), item.ident, item.vis)
        }
        _ => return None,
    };
    is_public(&visibility).then(|| (item, name.to_string()))
}

/// Returns the implementation without bodies and private parts, if it is of this type and not empty.
fn bare_impl(found: &ItemImpl, name: &str) -> Option<Item> {
    let mut found = found.clone();
    let Type::Path(of) = &*found.self_ty else { return None };
    if of.path.segments.last()?.ident != name || is_for_tests(&found.attrs) {
        return None;
    }
    found.attrs = kept(&found.attrs);
    let is_inherent = found.trait_.is_none();
    found.items.retain_mut(|item| match item {
        ImplItem::Fn(function) => {
            function.attrs = kept(&function.attrs);
            function.block = parse_quote!({});
            // The functions of a trait are known from the trait itself.
            is_inherent && is_public(&function.vis)
        }
        ImplItem::Const(constant) => {
            constant.attrs = kept(&constant.attrs);
            is_inherent && is_public(&constant.vis)
        }
        ImplItem::Type(_) => true,
        _ => false,
    });
    (!is_inherent || !found.items.is_empty()).then_some(Item::Impl(found))
}

fn print(items: Vec<Item>) -> String {
    prettyplease::unparse(&syn::File { shebang: None, frontmatter: None, attrs: Vec::new(), items })
}

#[test]
fn a_change_of_the_public_interface_is_deliberate() {
    let file = root().join("tests/public_api.rs.txt");
    let public = print(Library::read().public(&[]));
    if std::env::var_os("UPDATE_PUBLIC_API").is_some() {
        fs::write(&file, &public).unwrap();
    }
    let recorded = fs::read_to_string(&file).unwrap_or_default();
    let changed = |from: &str, to: &str| -> Vec<String> {
        from.lines().filter(|line| !to.lines().any(|other| other == *line)).map(str::to_owned).collect()
    };
    assert!(
        recorded == public,
        "the public interface has changed; if that is meant, run the tests with UPDATE_PUBLIC_API=1 and commit\n\
         gone: {:#?}\nnew: {:#?}",
        changed(&recorded, &public),
        changed(&public, &recorded)
    );
}
