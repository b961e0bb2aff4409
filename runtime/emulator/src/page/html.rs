//! HTML as text: one page with its head, its parts, and everything in it escaped.
//!
//! Owns the looks. Cells of a table come in as HTML that is escaped already; everything else is text.

use dualwright_odata::batch::Response;

use crate::Dialect;
use crate::cell;

/// One page while it is being written.
pub(super) struct Page {
    body: String,
}

/// Rows of a table while they are being written.
pub(super) struct Rows<'a> {
    body: &'a mut String,
    numbers: &'a [usize],
}

const STYLE: &str = include_str!("style.css");

impl Page {
    /// `place` is the entry of the menu that this page belongs to.
    pub fn new(dialect: Dialect, place: &str, title: &str) -> Self {
        let system = match dialect {
            Dialect::Dataverse => "Dataverse",
            Dialect::Finops => "Finance &amp; Operations",
        };
        let title = escaped(title);
        let menu = [
            ("/_emulator/", "Tables"),
            ("/_emulator/page/requests", "Requests"),
            ("/_emulator/page/audit", "Audit"),
            ("/_emulator/page/faults", "Faults"),
        ]
        .map(|(href, name)| {
            let here = if href == place { " aria-current=page" } else { "" };
            format!("<a href=\"{href}\"{here}>{name}</a>")
        })
        .concat();
        let body = format!(
            "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n\
             <meta name=viewport content=\"width=device-width, initial-scale=1\">\n\
             <meta name=color-scheme content=\"light dark\">\n<title>{title} · {system} emulator</title>\n\
             <style>{STYLE}</style>\n<a class=skip href=\"#main\">To the content</a>\n\
             <header><p class=system>{system}<span> emulator</span></p><nav aria-label=Pages>{menu}</nav></header>\n\
             <main id=main>\n<h1>{title}</h1>\n"
        );
        Self { body }
    }

    pub fn paragraph(&mut self, text: &str) {
        self.body.push_str(&format!("<p>{}</p>\n", escaped(text)));
    }

    pub fn heading(&mut self, text: &str) {
        self.body.push_str(&format!("<h2>{}</h2>\n", escaped(text)));
    }

    /// The way back to the page above.
    pub fn back(&mut self, href: &str, text: &str) {
        self.body.push_str(&format!("<p><a href=\"{}\">← {}</a></p>\n", escaped(href), escaped(text)));
    }

    /// A table; the columns in `numbers` hold numbers.
    pub fn table(&mut self, heads: &[&str], numbers: &[usize], rows: impl FnOnce(&mut Rows<'_>)) {
        self.body.push_str("<div class=wide tabindex=0><table>\n<thead><tr>");
        for (at, head) in heads.iter().enumerate() {
            let class = if numbers.contains(&at) { " class=number" } else { "" };
            self.body.push_str(&format!("<th scope=col{class}>{}</th>", escaped(head)));
        }
        self.body.push_str("</tr></thead>\n<tbody>\n");
        rows(&mut Rows { body: &mut self.body, numbers });
        self.body.push_str("</tbody></table></div>\n");
    }

    /// Links to the first and to the next page, where there are such.
    pub fn steps(&mut self, first: Option<&str>, next: Option<&str>) {
        if first.is_none() && next.is_none() {
            return;
        }
        self.body.push_str("<nav class=steps aria-label=Rows>");
        for (href, text) in [(first, "First page"), (next, "Next page →")] {
            if let Some(href) = href {
                self.body.push_str(&format!("<a href=\"{}\">{text}</a>", escaped(href)));
            }
        }
        self.body.push_str("</nav>\n");
    }

    pub fn answer(mut self, status: u16) -> Response {
        self.body.push_str("</main>\n</html>\n");
        let headers = [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cache-Control", "no-store"),
        ];
        Response {
            status,
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            body: self.body.into_bytes(),
            content_id: None,
        }
    }
}

impl Rows<'_> {
    /// One row; its cells are HTML.
    pub fn row(&mut self, cells: &[String]) {
        self.body.push_str("<tr>");
        for (at, cell) in cells.iter().enumerate() {
            let class = if self.numbers.contains(&at) { " class=number" } else { "" };
            self.body.push_str(&format!("<td{class}>{cell}</td>"));
        }
        self.body.push_str("</tr>\n");
    }
}

/// A word with a colour that it does not depend on.
pub(super) fn badge(class: &str, text: &str) -> String {
    format!("<span class=\"badge {class}\">{}</span>", escaped(text))
}

/// A stored cell as a person reads it, cut after so many letters.
pub(super) fn cell_text(cell: &str, letters_max: usize) -> String {
    if cell == cell::NULL {
        return "<span class=none>null</span>".to_owned();
    }
    let text = cell::text_of(cell);
    let text = text.as_deref().unwrap_or(cell);
    match text.char_indices().nth(letters_max) {
        Some((end, _)) => format!("{}…", escaped(&text[..end])),
        None => escaped(text),
    }
}

/// Text as HTML, in elements and in quoted attributes.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // What would turn the direction of the text around it, or is no character at all, is shown as missing.
            '\u{0}'..='\u{8}' | '\u{b}'..='\u{1f}' | '\u{7f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                out.push('\u{fffd}');
            }
            other => out.push(other),
        }
    }
    out
}
