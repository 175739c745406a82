package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// serverNames are the DNS names that the server's certificate is valid for, besides 127.0.0.1 and ::1. The second one
// resolves nowhere: it is for tests that set the TLS server name themselves.
var serverNames = []string{"localhost", "vault.test"}

// certificates is a test authority, made at start, with one server and one client certificate.
type certificates struct {
	caFile, clientCertFile, clientKeyFile string

	serverCertificate tls.Certificate
	authority         *x509.CertPool
}

func (c *certificates) server(clients tls.ClientAuthType) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{c.serverCertificate},
		ClientAuth:   clients,
		ClientCAs:    c.authority,
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"h2", "http/1.1"},
	}
}

// makeCertificates makes the authority and writes the PEM files that a client needs.
func makeCertificates(folder string) (*certificates, error) {
	var err error
	if folder == "" {
		folder, err = os.MkdirTemp("", "vaultserver-")
	} else {
		err = os.MkdirAll(folder, 0o700)
	}
	if err != nil {
		return nil, err
	}

	authority := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Vault test authority"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	authorityKey, authorityPEM, _, err := issue(authority, nil, nil)
	if err != nil {
		return nil, err
	}
	if authority, err = x509.ParseCertificate(decode(authorityPEM)); err != nil {
		return nil, err
	}

	_, serverPEM, serverKeyPEM, err := issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: "Vault test server"},
		DNSNames:    serverNames,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, authority, authorityKey)
	if err != nil {
		return nil, err
	}
	_, clientPEM, clientKeyPEM, err := issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: "Vault test client"},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, authority, authorityKey)
	if err != nil {
		return nil, err
	}

	made := &certificates{
		caFile:         filepath.Join(folder, "ca.pem"),
		clientCertFile: filepath.Join(folder, "client.pem"),
		clientKeyFile:  filepath.Join(folder, "client-key.pem"),
		authority:      x509.NewCertPool(),
	}
	made.authority.AddCert(authority)
	if made.serverCertificate, err = tls.X509KeyPair(serverPEM, serverKeyPEM); err != nil {
		return nil, err
	}
	for path, text := range map[string][]byte{
		made.caFile: authorityPEM, made.clientCertFile: clientPEM, made.clientKeyFile: clientKeyPEM,
	} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return nil, err
		}
	}
	return made, nil
}

// issue signs the template with the issuer's key, or with its own where there is no issuer, and returns both as PEM.
func issue(template, issuer *x509.Certificate, issuerKey *ecdsa.PrivateKey) (key *ecdsa.PrivateKey, certificatePEM, keyPEM []byte, err error) {
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, nil, err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return nil, nil, nil, err
	}
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(30 * 24 * time.Hour)
	if issuer == nil {
		issuer, issuerKey = template, key
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), issuerKey)
	if err != nil {
		return nil, nil, nil, err
	}
	keyBytes, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, nil, err
	}
	certificatePEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
	keyPEM = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyBytes})
	return key, certificatePEM, keyPEM, nil
}

func decode(text []byte) []byte {
	block, _ := pem.Decode(text)
	return block.Bytes
}
