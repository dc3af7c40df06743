//! `schema.dbs`, the database design for people, against the catalog of a migrated shard.

use std::collections::BTreeSet;

use serde::Deserialize;
use sqlx::Connection;

use super::shards::{database, drop_database, superuser};

/// The parts of a DbSchema model that describe a database.
#[derive(Deserialize)]
struct Project {
    #[serde(rename = "@database")]
    database: String,
    #[serde(rename = "schema")]
    schemas: Vec<Schema>,
    #[serde(rename = "layout")]
    layouts: Vec<Layout>,
}

#[derive(Deserialize)]
struct Schema {
    #[serde(rename = "@name")]
    name: String,
    #[serde(rename = "table")]
    tables: Vec<Table>,
}

#[derive(Deserialize)]
struct Table {
    #[serde(rename = "@name")]
    name: String,
    #[serde(rename = "column")]
    columns: Vec<Column>,
    #[serde(rename = "index", default)]
    indexes: Vec<Index>,
    #[serde(rename = "constraint", default)]
    constraints: Vec<Constraint>,
    #[serde(rename = "fk", default)]
    foreign_keys: Vec<ForeignKey>,
}

#[derive(Deserialize)]
struct Column {
    #[serde(rename = "@name")]
    name: String,
    #[serde(rename = "@type")]
    data_type: String,
    #[serde(rename = "@mandatory", default)]
    mandatory: String,
    #[serde(default)]
    defo: Option<String>,
    #[serde(default)]
    identity: Option<String>,
}

#[derive(Deserialize)]
struct Index {
    #[serde(rename = "@name")]
    name: String,
    #[serde(rename = "@unique")]
    unique: String,
    #[serde(rename = "column")]
    columns: Vec<Named>,
    #[serde(default)]
    options: Option<String>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(rename = "@name")]
    name: String,
}

#[derive(Deserialize)]
struct Constraint {
    #[serde(rename = "@name")]
    name: String,
    string: String,
}

#[derive(Deserialize)]
struct ForeignKey {
    #[serde(rename = "@name")]
    name: String,
    #[serde(rename = "@to_schema")]
    to_schema: String,
    #[serde(rename = "@to_table")]
    to_table: String,
    fk_column: Vec<ForeignColumn>,
}

#[derive(Deserialize)]
struct ForeignColumn {
    #[serde(rename = "@name")]
    name: String,
    #[serde(rename = "@pk")]
    pk: String,
}

#[derive(Deserialize)]
struct Layout {
    #[serde(rename = "entity")]
    entities: Vec<Entity>,
}

#[derive(Deserialize)]
struct Entity {
    #[serde(rename = "@schema")]
    schema: String,
    #[serde(rename = "@name")]
    name: String,
}

fn model() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../schema.dbs");
    std::fs::read_to_string(path).unwrap()
}

/// One line a fact, as [`CATALOG`] gives them.
fn facts_of_model(text: &str) -> BTreeSet<String> {
    let project: Project = quick_xml::de::from_str(text).unwrap();
    let mut facts = BTreeSet::new();
    for schema in &project.schemas {
        for table in &schema.tables {
            let of = format!("{}.{}", schema.name, table.name);
            facts.insert(format!("table {of}"));
            for (column, place) in table.columns.iter().zip(1..) {
                let null = if column.mandatory == "y" { "not null" } else { "null" };
                let default = column
                    .defo
                    .as_ref()
                    .or(column.identity.as_ref())
                    .map_or("", |text| text.trim());
                facts.insert(format!(
                    "column {of}.{} {place} {} {null} {default}",
                    column.name, column.data_type
                ));
            }
            for index in &table.indexes {
                let columns: Vec<&str> = index.columns.iter().map(|column| column.name.as_str()).collect();
                let options = index.options.as_ref().map_or("", |text| text.trim());
                facts.insert(format!(
                    "index {of} {} {} ({}) {options}",
                    index.name,
                    index.unique,
                    columns.join(", ")
                ));
            }
            for constraint in &table.constraints {
                facts.insert(format!(
                    "constraint {of} {} {}",
                    constraint.name,
                    constraint.string.trim()
                ));
            }
            for key in &table.foreign_keys {
                let from: Vec<&str> = key.fk_column.iter().map(|column| column.name.as_str()).collect();
                let to: Vec<&str> = key.fk_column.iter().map(|column| column.pk.as_str()).collect();
                let (from, to) = (from.join(", "), to.join(", "));
                facts.insert(format!(
                    "key {of} {} ({from}) {}.{} ({to})",
                    key.name, key.to_schema, key.to_table
                ));
            }
        }
    }
    facts
}

const CATALOG: &str = "
WITH ours AS (
    SELECT c.oid, n.nspname || '.' || c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_toast')
SELECT 'table ' || name FROM ours
UNION ALL
SELECT format('column %s.%s %s %s %s %s', o.name, a.attname, a.attnum, format_type(a.atttypid, a.atttypmod),
              CASE WHEN a.attnotnull THEN 'not null' ELSE 'null' END,
              CASE WHEN a.attidentity = 'a' THEN 'GENERATED ALWAYS AS IDENTITY'
                   WHEN a.attgenerated = 's' THEN format('GENERATED ALWAYS AS (%s) STORED', pg_get_expr(d.adbin, d.adrelid))
                   ELSE coalesce(pg_get_expr(d.adbin, d.adrelid), '') END)
FROM ours o JOIN pg_attribute a ON a.attrelid = o.oid AND a.attnum > 0 AND NOT a.attisdropped
     LEFT JOIN pg_attrdef d ON d.adrelid = o.oid AND d.adnum = a.attnum
UNION ALL
SELECT format('index %s %s %s (%s) %s', o.name, i.relname,
              CASE WHEN x.indisprimary THEN 'PRIMARY_KEY' WHEN x.indisunique THEN 'UNIQUE_INDEX' ELSE 'NORMAL' END,
              (SELECT string_agg(pg_get_indexdef(x.indexrelid, k::int, true), ', ' ORDER BY k)
               FROM generate_series(1, x.indnatts) k),
              coalesce('WHERE ' || pg_get_expr(x.indpred, x.indrelid), ''))
FROM ours o JOIN pg_index x ON x.indrelid = o.oid AND NOT x.indisexclusion JOIN pg_class i ON i.oid = x.indexrelid
UNION ALL
SELECT format('constraint %s %s %s', o.name, k.conname,
              regexp_replace(pg_get_constraintdef(k.oid), '^CHECK \\((.*)\\)$', '\\1'))
FROM ours o JOIN pg_constraint k ON k.conrelid = o.oid AND k.contype IN ('c', 'x')
UNION ALL
SELECT format('key %s %s (%s) %s (%s)', o.name, k.conname,
              (SELECT string_agg(a.attname, ', ' ORDER BY u.place) FROM unnest(k.conkey) WITH ORDINALITY u (n, place)
               JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n),
              k.confrelid::regclass,
              (SELECT string_agg(a.attname, ', ' ORDER BY u.place) FROM unnest(k.confkey) WITH ORDINALITY u (n, place)
               JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.n))
FROM ours o JOIN pg_constraint k ON k.conrelid = o.oid AND k.contype = 'f'";

#[tokio::test]
async fn the_design_is_what_the_migrations_make() {
    let name = database().await;
    let mut conn = superuser(&name).await;
    let catalog: Vec<String> = sqlx::query_scalar(CATALOG).fetch_all(&mut conn).await.unwrap();
    let catalog: BTreeSet<String> = catalog.into_iter().collect();
    let text = model();
    let design = facts_of_model(&text);
    let missing: Vec<_> = catalog.difference(&design).collect();
    let invented: Vec<_> = design.difference(&catalog).collect();
    assert!(
        missing.is_empty() && invented.is_empty(),
        "schema.dbs differs from the migrations.\nIt lacks: {missing:#?}\nIt invents: {invented:#?}"
    );
    // The comparison sees each kind of fact.
    for (part, other) in [
        ("type=\"jsonb\"", "type=\"json\""),
        (" mandatory=\"y\"", ""),
        ("unique=\"NORMAL\"", "unique=\"UNIQUE_INDEX\""),
        ("to_table=\"users\"", "to_table=\"orders\""),
        ("(version > 0)", "(version > 1)"),
        ("<table name=\"sms\"", "<table name=\"texts\""),
    ] {
        assert_ne!(
            facts_of_model(&text.replacen(part, other, 1)),
            catalog,
            "a wrong {part} is not noticed"
        );
    }
    conn.close().await.unwrap();
    drop_database(&name).await;
}

#[test]
fn every_table_of_the_design_is_drawn_once() {
    let project: Project = quick_xml::de::from_str(&model()).unwrap();
    assert_eq!(project.database, "PostgreSql");
    let tables = project.schemas.iter().flat_map(|schema| {
        schema
            .tables
            .iter()
            .map(move |table| (schema.name.clone(), table.name.clone()))
    });
    let mut drawn: Vec<_> = project
        .layouts
        .iter()
        .flat_map(|layout| {
            layout
                .entities
                .iter()
                .map(|entity| (entity.schema.clone(), entity.name.clone()))
        })
        .collect();
    drawn.sort();
    let mut tables: Vec<_> = tables.collect();
    tables.sort();
    assert_eq!(drawn, tables);
}

/// Every primary-key and foreign-key column has an index that begins with it.
#[tokio::test]
async fn every_key_column_is_indexed() {
    let name = database().await;
    let mut conn = superuser(&name).await;
    let bare: Vec<String> = sqlx::query_scalar(
        "SELECT format('%s.%s', k.conrelid::regclass, a.attname)
         FROM pg_constraint k CROSS JOIN unnest(k.conkey) column_number
              JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = column_number
         WHERE k.contype IN ('p', 'f') AND k.connamespace IN ('shop'::regnamespace, 'ringwright'::regnamespace)
               AND NOT EXISTS (SELECT FROM pg_index x WHERE x.indrelid = k.conrelid AND x.indkey[0] = column_number)",
    )
    .fetch_all(&mut conn)
    .await
    .unwrap();
    assert_eq!(bare, Vec::<String>::new());
    conn.close().await.unwrap();
    drop_database(&name).await;
}
