package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

// annotationProvisionedBy is how the provisioner library marks its volumes.
const annotationProvisionedBy = "pv.kubernetes.io/provisioned-by"

// grower makes volumes as large as their claims ask, as an external resizer would for a storage driver.
type grower struct {
	client  kubernetes.Interface
	volumes volumes
	claims  corelisters.PersistentVolumeClaimLister
	synced  cache.InformerSynced
	queue   workqueue.TypedRateLimitingInterface[cache.ObjectName]
}

func newGrower(client kubernetes.Interface, v volumes, factory informers.SharedInformerFactory) *grower {
	informer := factory.Core().V1().PersistentVolumeClaims()
	g := &grower{
		client:  client,
		volumes: v,
		claims:  informer.Lister(),
		synced:  informer.Informer().HasSynced,
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[cache.ObjectName](200*time.Millisecond, 30*time.Second)),
	}
	enqueue := func(object any) {
		if name, err := cache.ObjectToName(object); err == nil {
			g.queue.Add(name)
		}
	}
	_, err := informer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    enqueue,
		UpdateFunc: func(_, object any) { enqueue(object) },
	})
	if err != nil {
		klog.Fatalf("watching claims: %v", err) // only when the informer was stopped already
	}
	return g
}

func (g *grower) run(ctx context.Context) {
	cache.WaitForCacheSync(ctx.Done(), g.synced)
	for {
		name, stopped := g.queue.Get()
		if stopped {
			return
		}
		if err := g.grow(ctx, name); err != nil {
			klog.ErrorS(err, "Growing a volume", "claim", name)
			g.queue.AddRateLimited(name)
		} else {
			g.queue.Forget(name)
		}
		g.queue.Done(name)
	}
}

// grow brings the volume of one claim to the size asked for: file system first, then the volume's capacity, then the
// claim's status. Each step may be repeated.
func (g *grower) grow(ctx context.Context, name cache.ObjectName) error {
	claim, err := g.claims.PersistentVolumeClaims(name.Namespace).Get(name.Name)
	if apierrors.IsNotFound(err) {
		return nil
	} else if err != nil {
		return err
	}
	wanted := claim.Spec.Resources.Requests[v1.ResourceStorage]
	if claim.Status.Phase != v1.ClaimBound || wanted.Cmp(claim.Status.Capacity[v1.ResourceStorage]) <= 0 {
		return nil
	}
	pv, err := g.client.CoreV1().PersistentVolumes().Get(ctx, claim.Spec.VolumeName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if pv.Annotations[annotationProvisionedBy] != provisionerName {
		return nil
	}
	if wanted.Cmp(pv.Spec.Capacity[v1.ResourceStorage]) > 0 {
		if err := g.volumes.grow(ctx, pv.Name, wanted.Value()); err != nil {
			return err
		}
		if err := g.patchVolume(ctx, pv.Name, wanted); err != nil {
			return fmt.Errorf("writing the capacity of %s: %w", pv.Name, err)
		}
		klog.InfoS("Grew a volume", "claim", name, "volume", pv.Name, "size", wanted.String())
	}
	return g.patchClaim(ctx, claim, wanted)
}

func (g *grower) patchVolume(ctx context.Context, name string, size resource.Quantity) error {
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"capacity": v1.ResourceList{v1.ResourceStorage: size}}})
	if err != nil {
		return err
	}
	_, err = g.client.CoreV1().PersistentVolumes().Patch(ctx, name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	return err
}

func (g *grower) patchClaim(ctx context.Context, claim *v1.PersistentVolumeClaim, size resource.Quantity) error {
	patch, err := json.Marshal(map[string]any{"status": map[string]any{
		"capacity":   v1.ResourceList{v1.ResourceStorage: size},
		"conditions": []any{},
	}})
	if err != nil {
		return err
	}
	_, err = g.client.CoreV1().PersistentVolumeClaims(claim.Namespace).
		Patch(ctx, claim.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

var _ controller.Provisioner = provisioner{}
