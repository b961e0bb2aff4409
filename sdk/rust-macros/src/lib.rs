//! The derives of `dualwright-sdk`: what a settings struct and its choices look like to the host.
//!
//! Only syntax is looked at here. What a field's type means is decided by the SDK's traits.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::quote;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{
    Attribute, Data, DeriveInput, Error, Expr, ExprLit, ExprUnary, Field, Fields, Ident, Lit, LitStr, Token, UnOp,
};

/// Makes a struct the settings of a plugin. Every field is one of three:
///
/// * **a parameter**, which is the default. Its name is the field's with dashes, its text is the doc comment, its kind
///   follows from the type. `#[setting(name = "…", default = …, minimum = …, maximum = …)]` adds what is needed.
/// * **a column** under a fixed name: `#[column(name = "…")]`, with `table = "…"` for one of a target table, `write` if
///   the plugin returns it, and `kinds(Text, Choice)` to say which kinds will do. Type `Column` or `Option<Column>`.
/// * **a target table** of a table map: `#[table("accounts")]`. Type `Table` or `Option<Table>`.
#[proc_macro_derive(Settings, attributes(setting, column, table))]
pub fn settings(input: TokenStream) -> TokenStream {
    finish(syn::parse(input).and_then(|input| derive_settings(&input)))
}

/// Makes an enum without fields a parameter of kind choice. The names are the variants' in lower case with dashes.
#[proc_macro_derive(Choice)]
pub fn choice(input: TokenStream) -> TokenStream {
    finish(syn::parse(input).and_then(|input| derive_choice(&input)))
}

fn finish(result: Result<Tokens, Error>) -> TokenStream {
    result.unwrap_or_else(|error| error.to_compile_error()).into()
}

fn derive_settings(input: &DeriveInput) -> Result<Tokens, Error> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new(input.span(), "settings are a struct with named fields"));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new(input.span(), "settings are a struct with named fields"));
    };
    let mut declared = Vec::new();
    let mut read = Vec::new();
    let mut names = Vec::new();
    for field in &fields.named {
        let name = field.ident.as_ref().ok_or_else(|| Error::new(field.span(), "a field needs a name"))?;
        let part = match Role::of(field)? {
            Role::Parameter(parameter) => parameter.tokens(field, name),
            Role::Column(column) => column.tokens(field),
            Role::Table(set) => {
                let ty = &field.ty;
                Part { declare: quote!(), read: quote!(input.table::<#ty>(#set, &mut refusals)) }
            }
        };
        declared.push(part.declare);
        let value = part.read;
        read.push(quote!(let #name = #value;));
        names.push(name);
    }
    let name = &input.ident;
    Ok(quote! {
        impl ::dualwright_sdk::settings::Settings for #name {
            fn declare(to: &mut ::dualwright_sdk::settings::Declared) {
                #(#declared)*
            }

            fn read(
                input: &::dualwright_sdk::settings::Input<'_>,
            ) -> ::std::result::Result<Self, ::std::vec::Vec<::dualwright_sdk::settings::Refusal>> {
                let mut refusals = ::std::vec::Vec::new();
                #(#read)*
                match (#(#names,)*) {
                    (#(::std::option::Option::Some(#names),)*) if refusals.is_empty() => {
                        ::std::result::Result::Ok(Self { #(#names,)* })
                    }
                    _ => ::std::result::Result::Err(refusals),
                }
            }
        }
    })
}

/// What a field becomes in the two halves.
struct Part {
    declare: Tokens,
    read: Tokens,
}

enum Role {
    Parameter(ParameterField),
    Column(ColumnField),
    Table(LitStr),
}

impl Role {
    fn of(field: &Field) -> Result<Self, Error> {
        for attribute in &field.attrs {
            if attribute.path().is_ident("column") {
                return ColumnField::parse(attribute, doc(&field.attrs)).map(Self::Column);
            }
            if attribute.path().is_ident("table") {
                return attribute.parse_args().map(Self::Table);
            }
            if attribute.path().is_ident("setting") {
                return ParameterField::parse(attribute).map(Self::Parameter);
            }
        }
        Ok(Self::Parameter(ParameterField::default()))
    }
}

#[derive(Default)]
struct ParameterField {
    name: Option<LitStr>,
    default: Option<Expr>,
    minimum: Option<String>,
    maximum: Option<String>,
}

impl ParameterField {
    fn parse(attribute: &Attribute) -> Result<Self, Error> {
        let mut this = Self::default();
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("name") {
                this.name = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("default") {
                this.default = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("minimum") {
                this.minimum = Some(number(&meta.value()?.parse()?)?);
            } else if meta.path.is_ident("maximum") {
                this.maximum = Some(number(&meta.value()?.parse()?)?);
            } else {
                return Err(meta.error("a setting has name, default, minimum and maximum"));
            }
            Ok(())
        })?;
        if let Some(default) = &this.default {
            default_value(default)?;
        }
        Ok(this)
    }

    fn tokens(&self, field: &Field, ident: &Ident) -> Part {
        let ty = &field.ty;
        let name = match &self.name {
            Some(name) => name.value(),
            None => ident.to_string().trim_start_matches("r#").replace('_', "-"),
        };
        let text = doc(&field.attrs);
        let default = match self.default.as_ref().and_then(|default| default_value(default).ok()) {
            Some(value) => quote!(::std::option::Option::Some(#value)),
            None => quote!(::std::option::Option::None),
        };
        let minimum = optional(self.minimum.as_deref());
        let maximum = optional(self.maximum.as_deref());
        Part {
            declare: quote!(to.parameter::<#ty>(#name, #text, #default, #minimum, #maximum);),
            read: quote!(input.parameter::<#ty>(#name, #default, &mut refusals)),
        }
    }
}

fn optional(text: Option<&str>) -> Tokens {
    match text {
        Some(text) => quote!(::std::option::Option::Some(#text)),
        None => quote!(::std::option::Option::None),
    }
}

/// A number as it is written, with its sign.
fn number(expr: &Expr) -> Result<String, Error> {
    match expr {
        Expr::Lit(ExprLit { lit: Lit::Int(value), .. }) => Ok(value.base10_digits().to_owned()),
        Expr::Lit(ExprLit { lit: Lit::Float(value), .. }) => Ok(value.base10_digits().to_owned()),
        Expr::Unary(ExprUnary { op: UnOp::Neg(_), expr, .. }) => Ok(format!("-{}", number(expr)?)),
        _ => Err(Error::new(expr.span(), "a number")),
    }
}

fn default_value(expr: &Expr) -> Result<Tokens, Error> {
    let kind = quote!(::dualwright_sdk::settings::DefaultValue);
    match expr {
        Expr::Lit(ExprLit { lit: Lit::Bool(value), .. }) => Ok(quote!(#kind::Boolean(#value))),
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Ok(quote!(#kind::Text(#text))),
        Expr::Array(array) => {
            let texts = array.elems.iter().map(|element| match element {
                Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Ok(text),
                other => Err(Error::new(other.span(), "a text")),
            });
            let texts = texts.collect::<Result<Vec<_>, _>>()?;
            Ok(quote!(#kind::Texts(&[#(#texts),*])))
        }
        other => {
            let digits = number(other).map_err(|error| {
                Error::new(error.span(), "a default is true, false, a number, a text or a list of texts")
            })?;
            match digits.parse::<i64>() {
                Ok(value) => Ok(quote!(#kind::Integer(#value))),
                Err(_) => Ok(quote!(#kind::Decimal(#digits))),
            }
        }
    }
}

struct ColumnField {
    name: LitStr,
    table: String,
    write: bool,
    kinds: Vec<Ident>,
    text: String,
}

impl ColumnField {
    fn parse(attribute: &Attribute, text: String) -> Result<Self, Error> {
        let (mut name, mut table, mut write, mut kinds) = (None, String::new(), false, Vec::new());
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("name") {
                name = Some(meta.value()?.parse::<LitStr>()?);
            } else if meta.path.is_ident("table") {
                table = meta.value()?.parse::<LitStr>()?.value();
            } else if meta.path.is_ident("write") {
                write = true;
            } else if meta.path.is_ident("kinds") {
                let content;
                syn::parenthesized!(content in meta.input);
                kinds = Punctuated::<Ident, Token![,]>::parse_terminated(&content)?.into_iter().collect();
            } else {
                return Err(meta.error("a column has name, table, write and kinds"));
            }
            Ok(())
        })?;
        let name = name.ok_or_else(|| Error::new(attribute.span(), "a column has a name: #[column(name = \"…\")]"))?;
        Ok(Self { name, table, write, kinds, text })
    }

    fn tokens(&self, field: &Field) -> Part {
        let ty = &field.ty;
        let Self { name, table, write, kinds, text } = self;
        let kinds = quote!(&[#(::dualwright_sdk::Kind::#kinds),*]);
        let required = quote!(<#ty as ::dualwright_sdk::settings::ColumnField>::REQUIRED);
        Part {
            declare: quote!(to.column(#table, #name, #write, #kinds, #required, #text);),
            read: quote!(input.column::<#ty>(#table, #name, #write, #kinds, &mut refusals)),
        }
    }
}

/// The doc comment as one line.
fn doc(attributes: &[Attribute]) -> String {
    let mut text = String::new();
    for attribute in attributes {
        if !attribute.path().is_ident("doc") {
            continue;
        }
        if let syn::Meta::NameValue(pair) = &attribute.meta
            && let Expr::Lit(ExprLit { lit: Lit::Str(line), .. }) = &pair.value
        {
            let line = line.value();
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(line.trim());
        }
    }
    text.trim().to_owned()
}

fn derive_choice(input: &DeriveInput) -> Result<Tokens, Error> {
    let Data::Enum(data) = &input.data else {
        return Err(Error::new(input.span(), "a choice is an enum without fields"));
    };
    let mut variants = Vec::new();
    let mut names = Vec::new();
    for variant in &data.variants {
        if !matches!(variant.fields, Fields::Unit) {
            return Err(Error::new(variant.span(), "a choice is an enum without fields"));
        }
        variants.push(&variant.ident);
        names.push(dashed(&variant.ident.to_string()));
    }
    let name = &input.ident;
    Ok(quote! {
        impl ::dualwright_sdk::settings::Parameter for #name {
            const KIND: ::dualwright_sdk::settings::ParameterKind = ::dualwright_sdk::settings::ParameterKind::Choice;

            fn options() -> &'static [&'static str] {
                &[#(#names),*]
            }

            fn read(value: &::dualwright_sdk::settings::SettingValue) -> ::std::option::Option<Self> {
                match value {
                    ::dualwright_sdk::settings::SettingValue::Text(text) => match text.as_str() {
                        #(#names => ::std::option::Option::Some(Self::#variants),)*
                        _ => ::std::option::Option::None,
                    },
                    _ => ::std::option::Option::None,
                }
            }
        }
    })
}

/// `HalfEven` becomes `half-even`.
fn dashed(name: &str) -> String {
    let mut dashed = String::new();
    for (index, character) in name.char_indices() {
        if character.is_uppercase() && index > 0 {
            dashed.push('-');
        }
        dashed.extend(character.to_lowercase());
    }
    dashed
}
