//! What messages say: minijinja templates, built in and replaceable, one set a language.

mod context;
mod formats;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use minijinja::{Environment, UndefinedBehavior};

pub use context::{Context, InvoiceFacts, Line, OrderFacts, UserFacts};

/// The language of customers whose own is not there. Always complete, since it is built in.
const FALLBACK: &str = "en";
const LAYOUT: &str = "layout.html";

macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../templates/", $name)))),*]
    };
}

const BUILT_IN: &[(&str, &str)] = built_in![
    "layout.html",
    "en.order-processed.subject.txt",
    "en.order-processed.email.txt",
    "en.order-processed.email.html",
    "en.order-processed.sms.txt",
    "en.invoice-generated.subject.txt",
    "en.invoice-generated.email.txt",
    "en.invoice-generated.email.html",
    "en.invoice-generated.sms.txt",
    "de.order-processed.subject.txt",
    "de.order-processed.email.txt",
    "de.order-processed.email.html",
    "de.order-processed.sms.txt",
    "de.invoice-generated.subject.txt",
    "de.invoice-generated.email.txt",
    "de.invoice-generated.email.html",
    "de.invoice-generated.sms.txt",
];

/// What a customer is told about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Occasion {
    /// The order was processed.
    OrderProcessed,
    /// The invoice was generated.
    InvoiceGenerated,
}

impl Occasion {
    /// Every occasion.
    pub const ALL: [Self; 2] = [Self::OrderProcessed, Self::InvoiceGenerated];

    /// As in the names of the template files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OrderProcessed => "order-processed",
            Self::InvoiceGenerated => "invoice-generated",
        }
    }
}

/// The parts that each language has for each occasion.
const PARTS: [&str; 4] = ["subject.txt", "email.txt", "email.html", "sms.txt"];

/// An email's text, in both forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmailText {
    /// BCP 47 tag of the language it is in.
    pub language: String,
    /// One line.
    pub subject: String,
    /// For mail programs that show text.
    pub plain: String,
    /// For those that show HTML.
    pub html: String,
}

/// The set of templates, checked.
#[derive(Debug)]
pub struct Templates {
    environment: Environment<'static>,
    languages: BTreeSet<String>,
}

/// Why templates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The directory or a file of it.
    #[error("cannot read templates from {path}: {source}", path = path.display())]
    Read {
        /// What was read.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// No file that we would ever use: a typing error.
    #[error(
        "{name} is no template: the name must be layout.html or <language>.<occasion>.<part>, with occasion \
         order-processed or invoice-generated and part subject.txt, email.txt, email.html or sms.txt"
    )]
    UnknownFile {
        /// Its name.
        name: String,
    },
    /// A language that would leave a customer without a message.
    #[error("the templates of language {language} are incomplete, {missing} is missing")]
    Incomplete {
        /// The language.
        language: String,
        /// The first file that is missing.
        missing: String,
    },
    /// A syntax error or an unknown name.
    #[error("template {name}: {source}")]
    Broken {
        /// Its name.
        name: String,
        /// Where and what.
        source: minijinja::Error,
    },
}

impl Templates {
    /// The built-in templates, with files of a directory in place of those of the same name; every template is rendered
    /// once.
    ///
    /// # Errors
    /// When a file cannot be read, is not one of ours, or does not render, or a language is incomplete.
    pub fn load(directory: Option<&Path>) -> Result<Self, TemplateError> {
        let mut sources: BTreeMap<String, String> = BUILT_IN
            .iter()
            .map(|(name, source)| ((*name).to_owned(), (*source).to_owned()))
            .collect();
        if let Some(directory) = directory {
            sources.extend(read_directory(directory)?);
        }
        Self::compile(sources)
    }

    fn compile(sources: BTreeMap<String, String>) -> Result<Self, TemplateError> {
        let languages = languages_of(&sources)?;
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        formats::register(&mut environment);
        for (name, source) in sources {
            environment
                .add_template_owned(name.clone(), source)
                .map_err(|source| TemplateError::Broken { name, source })?;
        }
        let templates = Self { environment, languages };
        templates.render_each_once()?;
        Ok(templates)
    }

    fn render_each_once(&self) -> Result<(), TemplateError> {
        for language in &self.languages {
            for occasion in Occasion::ALL {
                for sample in Context::samples(occasion) {
                    self.email_in(language, occasion, &sample)?;
                    self.render(language, occasion, "sms.txt", None, &sample)?;
                }
            }
        }
        Ok(())
    }

    /// An email in the customer's language.
    ///
    /// # Errors
    /// When a template fails on this customer's data.
    pub fn email(&self, locale: &str, occasion: Occasion, context: &Context) -> Result<EmailText, TemplateError> {
        self.email_in(self.language_for(locale), occasion, context)
    }

    /// A text message in the customer's language, on one line, with ordinary spaces only: a no-break space is not in the
    /// alphabet of text messages and would halve the room of the whole message.
    ///
    /// # Errors
    /// When a template fails on this customer's data.
    pub fn sms(&self, locale: &str, occasion: Occasion, context: &Context) -> Result<String, TemplateError> {
        Ok(one_line(&self.render(
            self.language_for(locale),
            occasion,
            "sms.txt",
            None,
            context,
        )?))
    }

    fn email_in(&self, language: &str, occasion: Occasion, context: &Context) -> Result<EmailText, TemplateError> {
        // A name with a line break in it must not become a header of its own.
        let subject = one_line(&self.render(language, occasion, "subject.txt", None, context)?);
        Ok(EmailText {
            language: language.to_owned(),
            plain: self.render(language, occasion, "email.txt", Some(&subject), context)?,
            html: self.render(language, occasion, "email.html", Some(&subject), context)?,
            subject,
        })
    }

    fn render(
        &self,
        language: &str,
        occasion: Occasion,
        part: &str,
        subject: Option<&str>,
        context: &Context,
    ) -> Result<String, TemplateError> {
        let name = file_name(language, occasion, part);
        let values = context.values(language, subject);
        self.environment
            .get_template(&name)
            .and_then(|template| template.render(values))
            .map_err(|source| TemplateError::Broken { name, source })
    }

    /// The longest prefix of a locale that there are templates for (RFC 4647, look-up), whatever its capitals.
    fn language_for(&self, locale: &str) -> &str {
        let mut wanted = locale.replace('_', "-");
        loop {
            if let Some(language) = self
                .languages
                .iter()
                .find(|language| language.eq_ignore_ascii_case(&wanted))
            {
                return language;
            }
            match wanted.rfind('-') {
                Some(end) => wanted.truncate(end),
                None => return FALLBACK,
            }
        }
    }
}

fn file_name(language: &str, occasion: Occasion, part: &str) -> String {
    format!("{language}.{}.{part}", occasion.as_str())
}

/// Text without line breaks or other control characters, which have no place in a header.
pub(crate) fn one_line(text: &str) -> String {
    let words = text.split(|sign: char| sign.is_whitespace() || sign.is_control());
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

fn read_directory(directory: &Path) -> Result<BTreeMap<String, String>, TemplateError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| TemplateError::Read { path, source }
    };
    let mut sources = BTreeMap::new();
    for entry in fs::read_dir(directory).map_err(failed(directory))? {
        let path = entry.map_err(failed(directory))?.path();
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        // A mounted ConfigMap has hidden folders beside its files.
        if name.starts_with('.') || path.is_dir() {
            continue;
        }
        sources.insert(name, fs::read_to_string(&path).map_err(failed(&path))?);
    }
    Ok(sources)
}

/// The languages that the files are in; each must be complete.
fn languages_of(sources: &BTreeMap<String, String>) -> Result<BTreeSet<String>, TemplateError> {
    let mut languages = BTreeSet::new();
    for name in sources.keys().filter(|name| *name != LAYOUT) {
        let language = language_in(name).ok_or_else(|| TemplateError::UnknownFile { name: name.clone() })?;
        languages.insert(language.to_owned());
    }
    for language in &languages {
        for (occasion, part) in Occasion::ALL
            .into_iter()
            .flat_map(|occasion| PARTS.map(|part| (occasion, part)))
        {
            let name = file_name(language, occasion, part);
            if !sources.contains_key(&name) {
                return Err(TemplateError::Incomplete {
                    language: language.clone(),
                    missing: name,
                });
            }
        }
    }
    Ok(languages)
}

fn language_in(name: &str) -> Option<&str> {
    let (language, rest) = name.split_once('.')?;
    let (occasion, part) = rest.split_once('.')?;
    let known = Occasion::ALL.iter().any(|one| one.as_str() == occasion) && PARTS.contains(&part);
    (known && !language.is_empty()).then_some(language)
}

#[cfg(test)]
mod tests;
