//! The policies that the tool prints: what people paste, and what programs read.

use crate::lab::Lab;

#[test]
fn google() {
    let lab = Lab::empty();
    let policy = ["policy", "gcp", "--project-number", "123456789012"];
    if cfg!(not(feature = "gcp")) {
        lab.run(&policy).expect(2).says("--features gcp");
        return;
    }
    let key = "projects/my-project/locations/europe-west3/keyRings/ring/cryptoKeys/key";
    let more = [
        "--project",
        "my-project",
        "--region",
        "europe-west3",
        "--kms-key",
        key,
        "--member",
        "serviceAccount:airbyte@my-project.iam.gserviceaccount.com",
    ];
    lab.run(&[&policy[..], &more].concat())
        .expect(0)
        .says("\"secretmanager.secrets.create\"")
        .says("projects/123456789012/locations/europe-west3/secrets/airbyte_")
        .says("gcloud iam roles create secretPersistenceSecrets")
        .says("gcloud projects add-iam-policy-binding \"$PROJECT_ID\"")
        .says("gcloud kms keys add-iam-policy-binding")
        .says("service-123456789012@gcp-sa-secretmanager.iam.gserviceaccount.com");
    let reading = lab.run(&[&policy[..], &["--read-only", "--json"]].concat());
    let object = reading.expect(0).json();
    let shown = object["policy"].to_string();
    assert!(shown.contains("secretmanager.versions.access"), "{object}");
    assert!(
        !shown.contains(".create") && !shown.contains(".delete"),
        "{object}"
    );
    let commands = object["commands"].as_array().unwrap();
    assert!(commands.len() >= 6, "{object}");

    for (more, text) in [
        (&["--region", "europe"][..], "region"),
        (&["--member", "allUsers"], "serviceAccount:"),
        (&["--external", "x\") || (\""], "external"),
        (&["--kms-key", "key"], "cryptoKeys"),
    ] {
        lab.run(&[&policy[..], more].concat()).expect(2).says(text);
    }
    lab.run(&["policy", "gcp", "--project-number", "my-project"])
        .expect(2)
        .says("projectNumber");
}
