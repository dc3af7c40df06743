// Package credentials makes the keys, certificates and kubeconfigs of a cluster.
package credentials

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const certificateLife = 10 * 365 * 24 * time.Hour

// specification lists the keys, certificates and kubeconfigs of one cluster.
type specification struct {
	Directory    string        `json:"directory"`
	Server       string        `json:"server"`
	Cluster      string        `json:"cluster"`
	Certificates []certificate `json:"certificates"`
	SigningKeys  []string      `json:"signing_keys"`
}

type certificate struct {
	Name       string   `json:"name"`
	CommonName string   `json:"common_name"`
	Groups     []string `json:"groups"`
	Addresses  []string `json:"addresses"`
	DNSNames   []string `json:"dns_names"`
	// Kubeconfig says that NAME.kubeconfig is written too.
	Kubeconfig bool `json:"kubeconfig"`
}

// Run makes what of them is missing. Each file appears whole or not at all, a certificate after its key, so
// that it may be killed at any point and run again.
func Run(arguments []string) error {
	if len(arguments) != 1 {
		return errors.New("usage: credentials SPECIFICATION.json")
	}
	text, err := os.ReadFile(arguments[0])
	if err != nil {
		return err
	}
	var wanted specification
	if err := json.Unmarshal(text, &wanted); err != nil {
		return fmt.Errorf("reading %s: %w", arguments[0], err)
	}
	if err := os.MkdirAll(wanted.Directory, 0o700); err != nil {
		return err
	}
	authority, err := openAuthority(wanted.Directory)
	if err != nil {
		return err
	}
	for _, name := range wanted.SigningKeys {
		if err := authority.signingKey(name); err != nil {
			return fmt.Errorf("making signing key %s: %w", name, err)
		}
	}
	for _, c := range wanted.Certificates {
		if err := authority.issue(c); err != nil {
			return fmt.Errorf("issuing certificate %s: %w", c.Name, err)
		}
		if c.Kubeconfig {
			if err := authority.kubeconfig(c.Name, wanted.Cluster, wanted.Server); err != nil {
				return fmt.Errorf("writing the kubeconfig of %s: %w", c.Name, err)
			}
		}
	}
	return nil
}

// authority is the cluster's certificate authority and the directory it keeps.
type authority struct {
	directory   string
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
}

func openAuthority(directory string) (*authority, error) {
	a := &authority{directory: directory}
	key, err := a.openKey("ca")
	if err != nil {
		return nil, fmt.Errorf("opening the authority's key: %w", err)
	}
	a.key = key
	path := a.path("ca.crt")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		template, err := newCertificate("hermetic-authority", nil)
		if err != nil {
			return nil, err
		}
		template.IsCA, template.BasicConstraintsValid = true, true
		template.KeyUsage |= x509.KeyUsageCertSign
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			return nil, err
		}
		if err := writePEM(path, "CERTIFICATE", der); err != nil {
			return nil, err
		}
	}
	a.certificate, err = readCertificate(path)
	return a, err
}

func (a *authority) path(name string) string { return filepath.Join(a.directory, name) }

// openKey reads NAME.key, or makes it.
func (a *authority) openKey(name string) (*ecdsa.PrivateKey, error) {
	path := a.path(name + ".key")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			return nil, err
		}
		return key, writePEM(path, "EC PRIVATE KEY", der)
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM block", path)
	}
	return x509.ParseECPrivateKey(block.Bytes)
}

// signingKey makes NAME.key and NAME.pub.
func (a *authority) signingKey(name string) error {
	key, err := a.openKey(name)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	return writePEM(a.path(name+".pub"), "PUBLIC KEY", der)
}

// issue makes NAME.crt unless it is there and signed by this authority.
func (a *authority) issue(c certificate) error {
	key, err := a.openKey(c.Name)
	if err != nil {
		return err
	}
	path := a.path(c.Name + ".crt")
	if old, err := readCertificate(path); err == nil && old.CheckSignatureFrom(a.certificate) == nil && key.PublicKey.Equal(old.PublicKey) {
		return nil
	}
	template, err := newCertificate(c.CommonName, c.Groups)
	if err != nil {
		return err
	}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	template.DNSNames = c.DNSNames
	for _, address := range c.Addresses {
		ip := net.ParseIP(address)
		if ip == nil {
			return fmt.Errorf("%q is not an address", address)
		}
		template.IPAddresses = append(template.IPAddresses, ip)
	}
	if len(c.Addresses)+len(c.DNSNames) > 0 {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return err
	}
	return writePEM(path, "CERTIFICATE", der)
}

// kubeconfig writes NAME.kubeconfig with everything embedded, so that it can be copied elsewhere.
func (a *authority) kubeconfig(name, cluster, server string) error {
	var parts [3][]byte
	for i, file := range []string{"ca.crt", name + ".crt", name + ".key"} {
		text, err := os.ReadFile(a.path(file))
		if err != nil {
			return err
		}
		parts[i] = text
	}
	config := clientcmdapi.NewConfig()
	config.Clusters[cluster] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: parts[0]}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{ClientCertificateData: parts[1], ClientKeyData: parts[2]}
	config.Contexts[cluster] = &clientcmdapi.Context{Cluster: cluster, AuthInfo: name}
	config.CurrentContext = cluster
	text, err := clientcmd.Write(*config)
	if err != nil {
		return err
	}
	return writeWhole(a.path(name+".kubeconfig"), text)
}

func newCertificate(commonName string, groups []string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: commonName, Organization: groups},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(certificateLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}, nil
}

func readCertificate(path string) (*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM block", path)
	}
	return x509.ParseCertificate(block.Bytes)
}

func writePEM(path, kind string, der []byte) error {
	return writeWhole(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// writeWhole replaces a file in one step. All of them are private: some hold keys, and none needs to be read by others.
func writeWhole(path string, text []byte) error {
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
