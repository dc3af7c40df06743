use std::fs;

use super::*;

fn built_in() -> Templates {
    Templates::load(None).unwrap()
}

fn sample(occasion: Occasion) -> Context {
    Context::samples(occasion).remove(0)
}

#[test]
fn every_built_in_template_is_in_the_list() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
    let mut files = read_directory(&directory).unwrap();
    files.remove("README.md");
    let listed: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
    assert!(
        files.keys().all(|name| listed.contains(&name.as_str())),
        "{:?}",
        files.keys()
    );
}

#[test]
fn the_english_order_email_reads_well() {
    let email = built_in()
        .email("en-GB", Occasion::OrderProcessed, &sample(Occasion::OrderProcessed))
        .unwrap();
    insta::assert_snapshot!(format!("{}\n\n{}", email.subject, email.plain));
}

#[test]
fn the_german_invoice_email_reads_well() {
    let email = built_in()
        .email("de-AT", Occasion::InvoiceGenerated, &sample(Occasion::InvoiceGenerated))
        .unwrap();
    insta::assert_snapshot!(format!("{}\n\n{}", email.subject, email.html));
}

#[test]
fn html_is_escaped_and_text_is_not() {
    let email = built_in()
        .email("en", Occasion::OrderProcessed, &sample(Occasion::OrderProcessed))
        .unwrap();
    assert!(
        email.html.contains("Teapot &lt;large&gt; &amp; &quot;lid&quot;"),
        "{}",
        email.html
    );
    assert!(email.plain.contains("Teapot <large> & \"lid\""), "{}", email.plain);
}

#[test]
fn a_line_break_in_a_name_never_reaches_the_subject() {
    let mut context = sample(Occasion::OrderProcessed);
    context.order.reference = "1\r\nBcc: somebody@example.com".to_owned();
    let email = built_in().email("en", Occasion::OrderProcessed, &context).unwrap();
    assert_eq!(email.subject, "Your order 1 Bcc: somebody@example.com is on its way");
}

#[test]
fn the_language_is_the_longest_prefix_of_the_locale_else_english() {
    let templates = built_in();
    for (locale, language) in [
        ("de", "de"),
        ("de-AT", "de"),
        ("DE_ch", "de"),
        ("de-Latn-AT-x-a", "de"),
        ("fr-FR", "en"),
        ("", "en"),
    ] {
        assert_eq!(templates.language_for(locale), language, "{locale}");
    }
}

#[test]
fn files_of_a_directory_replace_the_built_in_ones() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(
        directory.path().join("en.order-processed.sms.txt"),
        "Done, {{ user.first_name }}.",
    )
    .unwrap();
    fs::create_dir(directory.path().join("..data")).unwrap();
    let templates = Templates::load(Some(directory.path())).unwrap();
    let context = sample(Occasion::OrderProcessed);
    assert_eq!(
        templates.sms("en", Occasion::OrderProcessed, &context).unwrap(),
        "Done, Ada."
    );
    assert!(
        templates
            .sms("de", Occasion::OrderProcessed, &context)
            .unwrap()
            .starts_with("Guten Tag")
    );
}

#[test]
fn broken_unknown_and_missing_templates_are_refused_at_the_start() {
    let refusal = |name: &str, source: &str| {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(name), source).unwrap();
        Templates::load(Some(directory.path())).unwrap_err().to_string()
    };
    assert!(refusal("en.order-processed.sms.txt", "{{ user.nickname }}").contains("undefined"));
    assert!(refusal("en.order-processed.sms.txt", "{% if %}").contains("en.order-processed.sms.txt"));
    assert!(refusal("en.order-procesed.sms.txt", "").contains("is no template"));
    assert!(refusal("fr.order-processed.sms.txt", "").contains("language fr are incomplete"));
    assert!(
        Templates::load(Some(Path::new("/nowhere")))
            .unwrap_err()
            .to_string()
            .contains("/nowhere")
    );
}
