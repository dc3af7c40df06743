// Command provisioner gives claims volumes of real size: full is full, and they grow while in use.
//
// The nodes are one machine, so a volume is usable from any of them and follows its pod, as network storage would.
package main

import (
	"context"
	"flag"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

// provisionerName is what the storage class asks for.
const provisionerName = "hermetic/volume"

// provisioner answers the provisioner library's calls.
type provisioner struct{ volumes volumes }

// Provision makes the volume of a claim.
func (p provisioner) Provision(ctx context.Context, o controller.ProvisionOptions) (*v1.PersistentVolume, controller.ProvisioningState, error) {
	if mode := o.PVC.Spec.VolumeMode; mode != nil && *mode != v1.PersistentVolumeFilesystem {
		return nil, controller.ProvisioningFinished, fmt.Errorf("volume mode %s is not offered here, only Filesystem", *mode)
	}
	request := o.PVC.Spec.Resources.Requests[v1.ResourceStorage]
	if request.Value() < smallest {
		request = *resource.NewQuantity(smallest, resource.BinarySI)
	}
	if err := p.volumes.create(ctx, o.PVName, request.Value()); err != nil {
		return nil, controller.ProvisioningInBackground, err
	}
	return &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: o.PVName},
		Spec: v1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: *o.StorageClass.ReclaimPolicy,
			AccessModes:                   o.PVC.Spec.AccessModes,
			Capacity:                      v1.ResourceList{v1.ResourceStorage: request},
			// A local volume rather than a hostPath: the kubelet honours fsGroup for it.
			PersistentVolumeSource: v1.PersistentVolumeSource{Local: &v1.LocalVolumeSource{Path: p.volumes.data(o.PVName)}},
			NodeAffinity:           anyNode(),
		},
	}, controller.ProvisioningFinished, nil
}

// anyNode satisfies the rule that a local volume names its nodes.
func anyNode() *v1.VolumeNodeAffinity {
	exists := v1.NodeSelectorRequirement{Key: v1.LabelHostname, Operator: v1.NodeSelectorOpExists}
	return &v1.VolumeNodeAffinity{Required: &v1.NodeSelector{
		NodeSelectorTerms: []v1.NodeSelectorTerm{{MatchExpressions: []v1.NodeSelectorRequirement{exists}}},
	}}
}

// Delete ends the volume of a claim that is gone.
func (p provisioner) Delete(ctx context.Context, pv *v1.PersistentVolume) error {
	return p.volumes.remove(ctx, pv.Name)
}

// recover mounts the volumes that exist after a restart of the machine, and removes files that no volume and no claim
// speaks of: their creation was cut off, and the claim deleted before it could be finished.
func (p provisioner) recover(ctx context.Context, client kubernetes.Interface) error {
	names, err := p.volumes.names()
	if err != nil || len(names) == 0 {
		return err
	}
	claims, err := client.CoreV1().PersistentVolumeClaims("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	claimed := map[string]bool{}
	for _, claim := range claims.Items {
		claimed["pvc-"+string(claim.UID)] = true
	}
	for _, name := range names {
		_, err := client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
		switch {
		case err == nil:
			err = p.volumes.attach(ctx, name)
		case apierrors.IsNotFound(err) && !claimed[name]:
			klog.InfoS("Removing a volume that nothing refers to", "volume", name)
			err = p.volumes.remove(ctx, name)
		case apierrors.IsNotFound(err):
			err = nil // Provision will be called again and finish it
		}
		if err != nil {
			return fmt.Errorf("recovering volume %s: %w", name, err)
		}
	}
	return nil
}

func main() {
	root := flag.String("root", "", "directory of the volumes")
	kubeconfig := flag.String("kubeconfig", "", "how to reach the API server")
	klog.InitFlags(nil)
	flag.Parse()

	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		klog.Fatalf("reading %s: %v", *kubeconfig, err)
	}
	config.QPS, config.Burst = 50, 100 // the default of 5 a second makes a dozen claims wait
	client := kubernetes.NewForConfigOrDie(config)
	ctx := context.Background()
	p := provisioner{volumes{*root}}
	if err := p.recover(ctx, client); err != nil {
		klog.Fatalf("recovering volumes: %v", err) // the supervisor starts it again
	}
	factory := informers.NewSharedInformerFactory(client, 10*time.Minute)
	grower := newGrower(client, p.volumes, factory)
	factory.Start(ctx.Done())
	go grower.run(ctx)
	controller.NewProvisionController(ctx, client, provisionerName, p,
		controller.LeaderElection(false), controller.Threadiness(4)).Run(ctx)
}
