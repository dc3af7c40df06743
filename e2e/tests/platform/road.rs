//! The whole road: an order through the API becomes an email with its invoice and a text message.

use anyhow::{Context, Result, ensure};
use e2e::api::Customer;
use e2e::{Platform, inbox};

#[tokio::test]
async fn a_processed_order_becomes_an_email_with_its_invoice_and_a_text() -> Result<()> {
    let platform = Platform::shared().await?;
    let (api, customer) = (platform.api().await?, Customer::new());
    let user = api.create_user(&customer).await?;
    let order = api.create_order(&user, "road-order").await?;
    let invoice = api
        .post(&format!("/v1/orders/{order}/invoice"), "road-invoice", None)
        .await?;
    let invoice = invoice.text_field("invoice_id")?;
    let pdf = api.get(&format!("/v1/invoices/{invoice}/pdf")).await?;
    ensure!(
        pdf.header("content-type") == "application/pdf",
        "the invoice came as {}",
        pdf.header("content-type")
    );
    api.post(&format!("/v1/orders/{order}/process"), "road-process", None)
        .await?
        .success()?;

    let (kubernetes, namespace) = (&platform.kubernetes, &platform.namespace);
    let emails = inbox::await_emails(kubernetes, namespace, &customer.email, 2).await?;
    let texts = inbox::await_texts(kubernetes, namespace, &customer.mobile, 2).await?;
    ensure!(
        emails.len() == 2 && texts.len() == 2,
        "one email and one text an event: {emails:?} {texts:?}"
    );
    for email in &emails {
        let invoice = email
            .attachments
            .first()
            .with_context(|| format!("no invoice in {:?}", email.subject))?;
        ensure!(
            invoice.name.ends_with(".pdf") && invoice.content.starts_with(b"%PDF-"),
            "{} is no PDF",
            invoice.name
        );
    }

    let told = api.get(&format!("/v1/orders/{order}/notifications")).await?.success()?;
    for channel in ["emails", "sms"] {
        let rows = told[channel].as_array().context("no list of notifications")?;
        ensure!(
            rows.len() == 2 && rows.iter().all(|row| row["status"] == "sent"),
            "{channel}: {rows:?}"
        );
    }
    Ok(())
}
