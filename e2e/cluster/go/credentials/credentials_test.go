package credentials

import (
	"crypto/x509"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
)

func issueAll(t *testing.T, directory string) {
	t.Helper()
	text, err := json.Marshal(specification{
		Directory:   directory,
		Server:      "https://10.0.0.1:6443",
		Cluster:     "test",
		SigningKeys: []string{"service-account"},
		Certificates: []certificate{
			{Name: "server", CommonName: "server", Addresses: []string{"10.0.0.1"}, DNSNames: []string{"kubernetes"}},
			{Name: "admin", CommonName: "admin", Groups: []string{"system:masters"}, Kubeconfig: true},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(directory, "list.json")
	if err := os.WriteFile(list, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Run([]string{list}); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, directory, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(directory, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestCertificatesAreSignedForTheirUse(t *testing.T) {
	directory := t.TempDir()
	issueAll(t, directory)
	authority, err := readCertificate(filepath.Join(directory, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority)
	for name, usage := range map[string]x509.ExtKeyUsage{"server": x509.ExtKeyUsageServerAuth, "admin": x509.ExtKeyUsageClientAuth} {
		c, err := readCertificate(filepath.Join(directory, name+".crt"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	server, _ := readCertificate(filepath.Join(directory, "server.crt"))
	if err := server.VerifyHostname("10.0.0.1"); err != nil {
		t.Error(err)
	}
	if _, err := clientcmd.Load([]byte(read(t, directory, "admin.kubeconfig"))); err != nil {
		t.Error(err)
	}
}

func TestASecondRunKeepsWhatIsThereAndMendsWhatIsNot(t *testing.T) {
	directory := t.TempDir()
	issueAll(t, directory)
	before := read(t, directory, "admin.crt") + read(t, directory, "ca.crt") + read(t, directory, "service-account.key")
	issueAll(t, directory)
	if before != read(t, directory, "admin.crt")+read(t, directory, "ca.crt")+read(t, directory, "service-account.key") {
		t.Error("a second run made new credentials")
	}
	if err := os.WriteFile(filepath.Join(directory, "server.crt"), []byte("cut off"), 0o600); err != nil {
		t.Fatal(err)
	}
	issueAll(t, directory)
	if _, err := readCertificate(filepath.Join(directory, "server.crt")); err != nil {
		t.Error(err)
	}
}
