package pauseimage

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func unpack(t *testing.T, content []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for reader := tar.NewReader(bytes.NewReader(content)); ; {
		header, err := reader.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[header.Name], err = io.ReadAll(reader); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheArchiveHoldsTheProgramUnderItsNameAndDigest(t *testing.T) {
	directory := t.TempDir()
	program, image := filepath.Join(directory, "program"), filepath.Join(directory, "image.tar")
	if err := os.WriteFile(program, []byte("a program"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Run([]string{program, "localhost/pause:1", image}); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	// An archive ends in two empty blocks; some readers refuse one that does not.
	if !bytes.HasSuffix(content, bytes.Repeat([]byte{0}, 1024)) {
		t.Error("the archive has no end")
	}
	files := unpack(t, content)
	if got := unpack(t, files["layer.tar"])["pause"]; string(got) != "a program" {
		t.Errorf("the layer holds %q", got)
	}
	var configuration struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(files["config.json"], &configuration); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("sha256:%x", sha256.Sum256(files["layer.tar"])); configuration.RootFS.DiffIDs[0] != want {
		t.Errorf("the layer is called %s, it is %s", configuration.RootFS.DiffIDs[0], want)
	}
	var manifest []struct{ RepoTags []string }
	if err := json.Unmarshal(files["manifest.json"], &manifest); err != nil || manifest[0].RepoTags[0] != "localhost/pause:1" {
		t.Errorf("the image is called %v (%v)", manifest, err)
	}
}
